// Asks the time service for the time, once.
import { connection } from './connection.mjs';

connection.onopen = async (session) => {
    console.log('Current time from time service:', await session.call('com.example.time.now'));
    connection.close();
};
connection.open();
