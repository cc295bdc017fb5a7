// The connection that all of these share.
import autobahn from 'autobahn';
import { WebSocket } from 'ws';

globalThis.WebSocket ??= WebSocket; // Node has its own from version 22 on

export const connection = new autobahn.Connection({ url: 'ws://127.0.0.1:8080/ws', realm: 'realm1' });
