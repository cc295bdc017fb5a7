// One side of a conversation: drives a published JavaScript client as the lines on standard input say.
//
// The lines are those of party.py: {"id", "op", "session", ...} in, {"id", "value"} or {"id", "error"} out, bytes as
// {"$bytes": base64}. What a client library itself does is in autobahn_js.mjs and wampy_js.mjs, each with one class
// Session.

import { createInterface } from 'node:readline';

import { Failure, fromControl, toControl } from './values.mjs';

const CLIENTS = { 'autobahn-js': './autobahn_js.mjs', wampy: './wampy_js.mjs' };

// Lets others wait until something became true.
class Change {
    waiters = [];

    notify() {
        for (const waiter of this.waiters.splice(0)) waiter();
    }

    async until(true_) {
        while (!true_()) await new Promise((resolve) => this.waiters.push(resolve));
    }
}

// What a registered procedure does when it is called, and how often it was.
class Procedure {
    invoked = 0;
    interrupted = 0;
    changed = new Change();

    constructor(behaviour) {
        this.behaviour = behaviour;
        this.released = new Promise((resolve) => {
            this.release = resolve;
        });
    }

    // The result as [args, kwargs], or Failure. `progress` sends one progressive result, or is null.
    async call(args, kwargs, procedure, progress, caller) {
        this.invoked += 1;
        this.changed.notify();
        switch (this.behaviour.kind) {
            case 'echo':
                return [args, kwargs];
            case 'fail':
                throw new Failure(this.behaviour.uri, args, kwargs);
            case 'procedure':
                return [[procedure], {}];
            case 'caller':
                return [[caller ?? null], {}];
            case 'authorize':
                return [[args[1].endsWith(this.behaviour.suffix)], {}];
            case 'authenticate': {
                // Who may come in is `users`: what each has to show, if anything, and what the router is told.
                const user = this.behaviour.users[args[1]];
                const shown = args[2].ticket ?? args[2].authextra.pubkey;
                if (!user || ![null, shown].includes(user.shows)) throw new Failure('com.example.error.no_such_user');
                return [[user.answer], {}];
            }
            case 'constant':
                return [[this.behaviour.value], {}];
            case 'progress':
                for (let step = 0; progress && step < this.behaviour.steps; step++) progress([step], {});
                return [['done'], {}];
            case 'wait':
                await this.released;
                return [['released'], {}];
            default:
                throw new Error(`no such behaviour: ${this.behaviour.kind}`);
        }
    }
}

const result = ([args, kwargs]) => ({ args: args ?? [], kwargs: kwargs ?? {} });

// Every operation of party.py, over all sessions of this process by name.
class Party {
    sessions = new Map();

    constructor(sessionClass) {
        this.sessionClass = sessionClass;
    }

    session(request) {
        const session = this.sessions.get(request.session);
        if (!session) throw new Error(`no session ${request.session}`);
        return session;
    }

    async connect(request) {
        const session = new this.sessionClass();
        Object.assign(session, { events: [], eventCame: new Change(), procedures: new Map(), calls: new Map() });
        const { link, serializer, realm, login, announce } = request;
        const welcome = await session.connect(link, serializer, realm, login, announce);
        this.sessions.set(request.session, session);
        return welcome;
    }

    leave(request) {
        return this.session(request).leave();
    }

    drop(request) {
        const session = this.session(request);
        this.sessions.delete(request.session);
        return session.drop();
    }

    async register(request) {
        const session = this.session(request);
        const procedure = new Procedure(request.behaviour);
        await session.register(request.name, request.procedure, request.options ?? {}, procedure);
        session.procedures.set(request.name, procedure);
    }

    unregister(request) {
        return this.session(request).unregister(request.name);
    }

    async invocations(request) {
        const procedure = this.session(request).procedures.get(request.name);
        await procedure.changed.until(
            () => procedure.invoked >= request.invoked && procedure.interrupted >= request.interrupted,
        );
        return { invoked: procedure.invoked, interrupted: procedure.interrupted };
    }

    async release(request) {
        this.session(request).procedures.get(request.name).release();
    }

    async call(request) {
        const steps = [];
        const progress = request.progress ? (args) => steps.push(args) : null;
        const session = this.session(request);
        const call = session.startCall(
            request.procedure,
            fromControl(request.args ?? null),
            fromControl(request.kwargs ?? null),
            request.options ?? {},
            progress,
        );
        return { ...result(await session.waitCall(call)), progress: steps };
    }

    async call_many(request) {
        const session = this.session(request);
        const calls = request.calls.map((args) => session.startCall(request.procedure, args, null, {}, null));
        return Promise.all(calls.map(async (call) => (await session.waitCall(call))[0]));
    }

    async call_in_parts(request) {
        const steps = [];
        const onProgress = (args) => steps.push(args);
        const { procedure, parts, in_turn: isInTurn } = request;
        const answer = await this.session(request).callInParts(procedure, parts, onProgress, isInTurn);
        return { ...result(answer), progress: steps };
    }

    async call_start(request) {
        const session = this.session(request);
        const call = session.startCall(
            request.procedure,
            fromControl(request.args ?? null),
            null,
            request.options ?? {},
            null,
        );
        // Kept as what it came to, so that an early rejection is nobody's unhandled one.
        const outcome = session.waitCall(call).then(
            (value) => () => value,
            (error) => () => {
                throw error;
            },
        );
        session.calls.set(request.name, { call, outcome });
    }

    async call_cancel(request) {
        const session = this.session(request);
        session.cancelCall(session.calls.get(request.name).call, request.mode ?? null);
    }

    async call_wait(request) {
        const session = this.session(request);
        return result((await session.calls.get(request.name).outcome)());
    }

    subscribe(request) {
        const session = this.session(request);
        const onEvent = (args, kwargs, topic, publication, publisher, retained, eventId) => {
            session.events.push({
                name: request.name,
                args: args ?? [],
                kwargs: kwargs ?? {},
                topic: topic ?? null,
                publication: publication ?? null,
                publisher: publisher ?? null,
                retained: Boolean(retained),
                event_id: eventId ?? null,
            });
            session.eventCame.notify();
        };
        return session.subscribe(request.name, request.topic, request.options ?? {}, onEvent);
    }

    unsubscribe(request) {
        return this.session(request).unsubscribe(request.name);
    }

    revocation(request) {
        return this.session(request).revocation(request.name);
    }

    publish(request) {
        return this.session(request).publish(
            request.topic,
            fromControl(request.args ?? null),
            fromControl(request.kwargs ?? null),
            request.options ?? {},
        );
    }

    publish_many(request) {
        const { topics, count } = request;
        return this.session(request).publishMany(
            Array.from({ length: count }, (_, i) => [topics[i % topics.length], [i]]),
        );
    }

    async events(request) {
        const session = this.session(request);
        const wanted = () => session.events.filter((event) => request.names.includes(event.name));
        await session.eventCame.until(() => wanted().length >= request.count);
        return wanted();
    }
}

// Client libraries print to standard output at times; the answers have it for themselves.
for (const name of ['log', 'info', 'debug']) console[name] = console.error;
const answer = (line) => process.stdout.write(JSON.stringify(line) + '\n');

async function handle(party, request) {
    try {
        const value = await party[request.op](request);
        answer({ id: request.id, value: toControl(value ?? null) });
    } catch (error) {
        const failed = error instanceof Failure;
        answer({
            id: request.id,
            error: {
                uri: failed ? error.uri : null,
                args: failed ? toControl(error.args) : [],
                kwargs: failed ? toControl(error.kwargs) : {},
                text: failed ? `${error.uri} ${JSON.stringify(error.args)}` : String(error?.stack ?? error),
            },
        });
    }
}

const { Session } = await import(CLIENTS[process.argv[2]]);
const party = new Party(Session);
// A library that lets an error go by must not take the other sessions of this process with it.
process.on('unhandledRejection', (error) => console.error('unhandled rejection:', error));
process.on('uncaughtException', (error) => console.error('uncaught:', error));
answer({ id: 0, value: 'ready' });
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    handle(party, JSON.parse(line));
}
process.exit(0); // what is still under way belongs to nobody
