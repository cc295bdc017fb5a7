// Payload values and errors on their way between the control lines, the client libraries and WAMP.

import { createRequire } from 'node:module';
import { join } from 'node:path';

// The libraries live in .clients/node_modules, which is not above this file.
export const requireClient = createRequire(join(process.env.CROSSPOINT_CLIENTS, 'party.cjs'));

// A WAMP error, either way: raised by a procedure here, or met by a request of ours.
export class Failure extends Error {
    constructor(uri, args, kwargs) {
        super(uri);
        this.uri = uri;
        this.args = args ?? [];
        this.kwargs = kwargs ?? {};
    }
}

// Rebuilds a payload value; `leaf` gives the replacement of a value, or undefined to go on inside of it.
function rebuild(value, leaf) {
    const replaced = leaf(value);
    if (replaced !== undefined) return replaced;
    if (Array.isArray(value)) return value.map((item) => rebuild(item, leaf));
    if (value !== null && typeof value === 'object') {
        return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, rebuild(item, leaf)]));
    }
    return value;
}

const isBytes = (value) => value instanceof Uint8Array || value instanceof ArrayBuffer;
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
// Some serializers give long integers as BigInt, which JSON does not take; none here is beyond 2^53.
export const toControl = (value) =>
    rebuild(value, (item) => {
        if (isBytes(item)) return { $bytes: base64(item) };
        return typeof item === 'bigint' ? Number(item) : undefined;
    });
export const fromControl = (value) =>
    rebuild(value, (item) => (typeof item?.$bytes === 'string' ? Buffer.from(item.$bytes, 'base64') : undefined));

// Bytes as WAMP wants them in JSON, which both libraries leave to their user; other serializers take them as they are.
export function payloadRules(serializer) {
    if (serializer !== 'json') return { outgoing: (value) => value, incoming: (value) => value };
    return {
        outgoing: (value) => rebuild(value, (item) => (isBytes(item) ? '\0' + base64(item) : undefined)),
        incoming: (value) =>
            rebuild(value, (item) =>
                typeof item === 'string' && item.startsWith('\0') ? Buffer.from(item.slice(1), 'base64') : undefined,
            ),
    };
}
