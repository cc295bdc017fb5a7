// Autobahn|JS, as party.mjs drives it.

import { Failure, payloadRules, requireClient } from './values.mjs';

// The library takes the WebSocket of its environment, which Node has from version 22 on, and only for TCP.
globalThis.WebSocket = requireClient('ws').WebSocket;
const autobahn = requireClient('autobahn');
const nacl = requireClient('tweetnacl');

const SERIALIZERS = {
    json: () => new autobahn.serializer.JSONSerializer(),
    msgpack: () => new autobahn.serializer.MsgpackSerializer(),
    cbor: () => new autobahn.serializer.CBORSerializer(),
};

const failure = (error) =>
    error instanceof autobahn.Error ? new Failure(error.error, error.args, error.kwargs) : error;

function credentials(login) {
    if (!login) return {};
    const { method, authid, secret } = login;
    const pair = method === 'cryptosign' && nacl.sign.keyPair.fromSeed(new Uint8Array(Buffer.from(secret, 'hex')));
    return {
        authid,
        authmethods: [method],
        authextra: pair ? { pubkey: autobahn.auth_cryptosign.public_key(pair) } : {},
        onchallenge(_, method, extra) {
            if (method === 'cryptosign') return autobahn.auth_cryptosign.sign_challenge(pair, extra);
            if (method !== 'wampcra') return secret; // a ticket or a token, which is shown as it is
            const { challenge, salt, iterations, keylen } = extra;
            const { sign, derive_key } = autobahn.auth_cra;
            return sign(salt ? derive_key(secret, salt, iterations, keylen) : secret, challenge);
        },
    };
}

export class Session {
    registrations = new Map();
    subscriptions = new Map();

    async connect(link, serializer, realm, login) {
        Object.assign(this, payloadRules(serializer));
        const place = link.unix ? { path: link.unix } : { host: link.host, port: link.port };
        const url = link.unix ? `ws+unix:${link.unix}:${link.path}` : `ws://${link.host}:${link.port}${link.path}`;
        const transport =
            link.framing === 'websocket'
                ? { type: 'websocket', url, serializers: [SERIALIZERS[serializer]()] }
                : { type: 'rawsocket', url: 'rawsocket', ...place };
        this.connection = new autobahn.Connection({ transports: [transport], realm, max_retries: 0, on_user_error() {}, ...credentials(login) });
        return new Promise((resolve, reject) => {
            this.closed = new Promise((closed) => {
                this.connection.onopen = (session, details) => {
                    this.session = session;
                    const features = Object.entries(details.roles).map(([role, { features }]) => [role, features]);
                    resolve({ session: session.id, features: Object.fromEntries(features) });
                };
                this.connection.onclose = (how, details) => {
                    const reason = details.reason;
                    reject(reason ? new Failure(reason) : new Error(`the link closed: ${how}`));
                    closed({ reason });
                    return true; // do not come back
                };
            });
            this.connection.open();
        });
    }

    leave() {
        this.connection.close();
        return this.closed;
    }

    async drop() {
        this.connection._transport.close(3000, 'dropped');
    }

    async register(name, procedure, options, behaviour) {
        const endpoint = async (args, kwargs, details) => {
            const progress = details.progress && ((args, kwargs) => details.progress(args, kwargs));
            try {
                const answer = await behaviour.call(
                    this.incoming(args),
                    this.incoming(kwargs),
                    details.procedure,
                    progress,
                    details.caller,
                );
                return new autobahn.Result(...answer.map(this.outgoing));
            } catch (error) {
                if (!(error instanceof Failure)) throw error;
                throw new autobahn.Error(error.uri, this.outgoing(error.args), this.outgoing(error.kwargs));
            }
        };
        this.registrations.set(name, await this.request(this.session.register(procedure, endpoint, options)));
    }

    unregister(name) {
        return this.registrations.get(name).unregister();
    }

    async request(promise) {
        try {
            return await promise;
        } catch (error) {
            const known = failure(error);
            if (known instanceof Failure) {
                known.args = this.incoming(known.args);
                known.kwargs = this.incoming(known.kwargs);
            }
            throw known;
        }
    }

    startCall(procedure, args, kwargs, options, onProgress) {
        const call = this.session.call(procedure, this.outgoing(args), this.outgoing(kwargs), {
            ...options,
            ...(onProgress ? { receive_progress: true } : {}),
        });
        const progress = (step) => onProgress?.(step instanceof autobahn.Result ? step.args : [step]);
        call.then(null, () => {}, progress);
        return call;
    }

    cancelCall(call, mode) {
        call.cancel(mode ? { mode } : {});
    }

    async waitCall(call) {
        const value = await this.request(call);
        if (value instanceof autobahn.Result) return [this.incoming(value.args), this.incoming(value.kwargs)];
        // The library gives a single positional value bare, and null where there is no payload at all.
        return [value === null ? [] : [this.incoming(value)], {}];
    }

    async subscribe(name, topic, options, onEvent) {
        const handler = (args, kwargs, event) =>
            onEvent(
                this.incoming(args),
                this.incoming(kwargs),
                event.topic,
                event.publication,
                event.publisher,
                event.retained,
            );
        this.subscriptions.set(name, await this.request(this.session.subscribe(topic, handler, options)));
    }

    revocation(name) {
        return this.subscriptions.get(name).on_unsubscribe;
    }

    unsubscribe(name) {
        return this.subscriptions.get(name).unsubscribe();
    }

    async publish(topic, args, kwargs, options) {
        const published = this.session.publish(topic, this.outgoing(args), this.outgoing(kwargs), options);
        return { publication: (await this.request(published))?.id ?? null };
    }

    async publishMany(publications) {
        for (const [topic, args] of publications) this.session.publish(topic, args);
    }
}
