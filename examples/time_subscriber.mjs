// Prints every tick of the time service.
import { connection } from './connection.mjs';

connection.onopen = (session) => session.subscribe('com.example.time.tick', ([time]) => console.log('tick:', time));
connection.open();
