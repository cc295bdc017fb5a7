// A time service: tells the time to whoever calls, and publishes it every second.
import { connection } from './connection.mjs';

const now = () => new Date().toISOString().replace(/\.\d+/, '');

connection.onopen = async (session) => {
    await session.register('com.example.time.now', now);
    console.log('time service is ready');
    const ticker = setInterval(() => session.publish('com.example.time.tick', [now()]), 1000);
    connection.onclose = () => clearInterval(ticker);
};
connection.open();
