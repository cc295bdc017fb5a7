// Logs in with Autobahn|JS or wampy.js and prints what came of it:
// login_js.mjs autobahn|wampy URL REALM METHOD AUTHID SECRET [PUBLIC-KEY]

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const requireClient = createRequire(join(process.env.CROSSPOINT_CLIENTS, 'party.cjs'));
const [library, url, realm, method, authid, secret, publicKey] = process.argv.slice(2);
const authextra = method === 'cryptosign' ? { pubkey: publicKey } : {};

function finish(outcome) {
    console.log(JSON.stringify(outcome));
    process.exit(0);
}

function withAutobahn() {
    // It takes the WebSocket of its environment, which Node has from version 22 on.
    globalThis.WebSocket = requireClient('ws').WebSocket;
    const autobahn = requireClient('autobahn');
    const nacl = requireClient('tweetnacl');
    const answer = {
        ticket: () => secret,
        wampcra: (extra) => {
            const key = extra.salt
                ? autobahn.auth_cra.derive_key(secret, extra.salt, extra.iterations, extra.keylen)
                : secret;
            return autobahn.auth_cra.sign(key, extra.challenge);
        },
        cryptosign: (extra) => {
            const pair = nacl.sign.keyPair.fromSeed(new Uint8Array(Buffer.from(secret, 'hex')));
            return autobahn.auth_cryptosign.sign_challenge(pair, extra);
        },
    }[method];
    const connection = new autobahn.Connection({
        transports: [{ type: 'websocket', url, serializers: [new autobahn.serializer.JSONSerializer()] }],
        realm, authid, authextra, authmethods: [method], max_retries: 0,
        onchallenge: (_session, _method, extra) => answer(extra),
    });
    connection.onopen = (session, details) =>
        finish({ authid: details.authid, role: details.authrole, method: details.authmethod });
    connection.onclose = (how, details) => finish({ reason: details.reason ?? how });
    connection.open();
}

async function withWampy() {
    const { WebSocket } = requireClient('ws');
    const { Wampy } = requireClient('wampy');
    const sign = await {
        ticket: () => () => secret,
        // This one cannot be required.
        wampcra: async () => (await import(pathToFileURL(requireClient.resolve('wampy/wampcra.js')))).sign(secret),
        cryptosign: () => requireClient('wampy/cryptosign.js').sign(secret),
    }[method]();
    const wampy = new Wampy(url, {
        realm, authid, authextra, authmethods: [method], ws: WebSocket, autoReconnect: false, onChallenge: sign,
    });
    try {
        const welcome = await wampy.connect();
        finish({ authid: welcome.authid, role: welcome.authrole, method: welcome.authmethod });
    } catch (error) {
        finish({ reason: error.errorUri ?? error.message });
    }
}

setTimeout(() => finish({ reason: 'no answer in time' }), 20000);
await (library === 'autobahn' ? withAutobahn() : withWampy());
