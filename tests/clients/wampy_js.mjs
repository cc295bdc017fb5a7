// wampy.js, as party.mjs drives it.

import { Failure, payloadRules, requireClient } from './values.mjs';

const { WebSocket } = requireClient('ws');
const { Wampy } = requireClient('wampy');
const { JsonSerializer } = requireClient('wampy/JsonSerializer.js');
const { MsgpackSerializer } = requireClient('wampy/MsgpackSerializer.js');
const { CborSerializer } = requireClient('wampy/CborSerializer.js');

const wampcra = await import(requireClient.resolve('wampy/wampcra.js'));
const cryptosign = requireClient('wampy/cryptosign.js');

const SERIALIZERS = { json: JsonSerializer, msgpack: MsgpackSerializer, cbor: CborSerializer };

// The library takes ws: addresses only; where the socket is a Unix one is up to the WebSocket class given to it.
const onUnixSocket = (link) =>
    class extends WebSocket {
        constructor(_, protocols) {
            super(`ws+unix:${link.unix}:${link.path}`, protocols);
        }
    };

function credentials(login) {
    if (!login) return {};
    const { method, authid, secret } = login;
    const plugin = { wampcra, cryptosign }[method];
    return {
        authid,
        authmethods: [method],
        authextra: method === 'cryptosign' ? { pubkey: login.publicKey } : {},
        authMode: 'auto',
        authPlugins: { [method]: plugin ? plugin.sign(secret) : () => secret },
    };
}

export class Session {
    subscriptions = new Map();
    registrations = new Map();

    // `announce` is what the library has and does not say that it has: features by role.
    async connect(link, serializer, realm, login, announce) {
        Object.assign(this, payloadRules(serializer));
        this.wampy = new Wampy(link.unix ? `ws://localhost${link.path}` : `ws://${link.host}:${link.port}${link.path}`, {
            realm,
            ws: link.unix ? onUnixSocket(link) : WebSocket,
            serializer: new SERIALIZERS[serializer](),
            autoReconnect: false,
            uriValidation: 'loose',
            ...credentials(login),
        });
        for (const [role, features] of Object.entries(announce ?? {})) {
            for (const feature of features) this.wampy._wamp_features.roles[role].features[feature] = true;
        }
        const welcome = await this.request(this.wampy.connect());
        const features = Object.entries(welcome.roles).map(([role, { features }]) => [role, features]);
        return { session: this.wampy.getSessionId(), features: Object.fromEntries(features) };
    }

    async leave() {
        await this.wampy.disconnect();
        return { reason: null };
    }

    async drop() {
        this.wampy.abort();
    }

    async request(promise) {
        try {
            return await promise;
        } catch (error) {
            if (!error?.errorUri) throw error;
            throw new Failure(error.errorUri, this.incoming(error.argsList ?? []), this.incoming(error.argsDict ?? {}));
        }
    }

    payload(args, kwargs) {
        if (!args?.length && !Object.keys(kwargs ?? {}).length) return undefined;
        return { argsList: this.outgoing(args ?? []), ...(kwargs ? { argsDict: this.outgoing(kwargs) } : {}) };
    }

    async register(name, procedure, options, behaviour) {
        const endpoint = async ({ details, argsList, argsDict, result_handler }) => {
            const progress =
                details.receive_progress &&
                ((args, kwargs) => result_handler({ ...this.payload(args, kwargs), options: { progress: true } }));
            try {
                const answer = await behaviour.call(
                    this.incoming(argsList ?? []),
                    this.incoming(argsDict ?? {}),
                    details.procedure ?? procedure,
                    progress,
                    details.caller,
                );
                return this.payload(...answer);
            } catch (error) {
                if (!(error instanceof Failure)) throw error;
                throw { error: error.uri, argsList: this.outgoing(error.args), argsDict: this.outgoing(error.kwargs) };
            }
        };
        await this.request(this.wampy.register(procedure, endpoint, options));
        this.registrations.set(name, procedure);
    }

    unregister(name) {
        return this.request(this.wampy.unregister(this.registrations.get(name)));
    }

    startCall(procedure, args, kwargs, options, onProgress) {
        const progress = onProgress ? { progress_callback: (step) => onProgress(step.argsList) } : {};
        const answer = this.wampy.call(procedure, this.payload(args, kwargs), { ...options, ...progress });
        answer.catch(() => {});
        return { answer, request: this.wampy.getOpStatus().reqId };
    }

    cancelCall(call, mode) {
        this.wampy.cancel(call.request, mode ? { mode } : {});
    }

    async waitCall(call) {
        const { argsList, argsDict } = await this.request(call.answer);
        return [this.incoming(argsList ?? []), this.incoming(argsDict ?? {})];
    }

    // Each part is sent when there is a result of the one before, or all at once.
    async callInParts(procedure, parts, onProgress, isInTurn) {
        const [first, ...others] = parts.map((args) => this.payload(args, null));
        const sendNext = () => call.sendData(others.shift(), { progress: others.length > 0 });
        const call = this.wampy.progressiveCall(procedure, first, {
            progress_callback: (step) => {
                onProgress(this.incoming(step.argsList));
                if (isInTurn) sendNext();
            },
        });
        while (!isInTurn && others.length) sendNext();
        const { argsList, argsDict } = await this.request(call.result);
        return [this.incoming(argsList ?? []), this.incoming(argsDict ?? {})];
    }

    async subscribe(name, topic, options, onEvent) {
        const handler = ({ details, argsList, argsDict }) =>
            onEvent(
                this.incoming(argsList ?? []),
                this.incoming(argsDict ?? {}),
                details.topic ?? topic,
                undefined,
                details.publisher,
                details.retained,
                details._event_id,
            );
        const given = Object.keys(options).length ? [options] : [];
        const subscribed = await this.request(this.wampy.subscribe(topic, handler, ...given));
        this.subscriptions.set(name, [subscribed.subscriptionId, handler]);
    }

    unsubscribe(name) {
        return this.request(this.wampy.unsubscribe(...this.subscriptions.get(name)));
    }

    async publish(topic, args, kwargs, options) {
        const { acknowledge, ...others } = options;
        const published = await this.request(this.wampy.publish(topic, this.payload(args, kwargs), others));
        return { publication: published.publicationId };
    }

    async publishMany(publications) {
        const acknowledged = publications.map(([topic, args]) => this.wampy.publish(topic, { argsList: args }));
        await this.request(Promise.all(acknowledged));
    }
}
