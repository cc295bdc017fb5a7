'use strict';

// ---- A WAMP session: messages in JSON over WebSocket. Take it along; the specification is at https://wamp-proto.org.

const HELLO = 1, WELCOME = 2, ABORT = 3, GOODBYE = 6, ERROR = 8;
const SUBSCRIBE = 32, SUBSCRIBED = 33, EVENT = 36, CALL = 48, CANCEL = 49, RESULT = 50;

class WampError extends Error {
  constructor(uri, args = []) {
    super(args.length ? `${args[0]} (${uri})` : uri);
    this.uri = uri;
  }
}

class Session {
  #socket;
  #lastRequest = 0;
  #requests = new Map();   // request id: whom its answer goes to
  #handlers = new Map();   // subscription id: the function for its events

  // Resolves once the router has said WELCOME. `watch(direction, text)` sees every message, `ended(reason)` the end.
  static open(url, realm, { watch = () => {}, ended = () => {} } = {}) {
    return new Promise((resolve, reject) => {
      const session = new Session();
      const socket = session.#socket = new WebSocket(url, 'wamp.2.json');
      session.watch = watch;
      let reason = 'the router cannot be reached';
      socket.onopen = () => session.#send([HELLO, realm, { roles: { caller: { features: {
        progressive_call_results: true, call_canceling: true } }, subscriber: {} } }]);
      socket.onmessage = ({ data }) => {
        watch('received', data);
        const message = JSON.parse(data);
        switch (message[0]) {
          case WELCOME:
            [, session.id, session.details] = message;
            reason = 'the connection broke';
            resolve(session);
            break;
          case ABORT:
            reason = message[1].message ?? message[2];
            break;
          case GOODBYE:
            reason = message[2];
            session.#send([GOODBYE, {}, 'wamp.close.goodbye_and_out']);
            break;
          default:
            session.#receive(message);
        }
      };
      socket.onclose = () => {
        const error = new WampError('wamp.close.transport_lost', [reason]);
        for (const request of session.#requests.values()) request.reject(error);
        session.#requests.clear();
        // For a session that was open already this does nothing, and `ended` is what tells.
        reject(error);
        ended(reason);
      };
    });
  }

  // The arguments of the result: a list, with the keyword arguments as its property `kwargs`. With `part`, a function,
  // results come in parts as they are ready, and the last one is what the promise gives. `signal` of an AbortController
  // cancels the call.
  call(procedure, args = [], kwargs = {}, { part, signal } = {}) {
    const options = part ? { receive_progress: true } : {};
    const { id, answer } = this.#request([CALL, options, procedure, args, kwargs], { part });
    signal?.addEventListener('abort', () => {
      if (this.#requests.has(id)) this.#send([CANCEL, id, { mode: 'kill' }]);
    });
    return answer;
  }

  // `handler(args, kwargs, details)` is called for every event from now on.
  subscribe(topic, handler, options = {}) {
    return this.#request([SUBSCRIBE, options, topic], { handler }).answer;
  }

  close() {
    this.#socket.close();
  }

  // Requests are numbered 1, 2, 3, and the answer has the same number.
  #request([type, ...rest], more) {
    const id = ++this.#lastRequest;
    const answer = new Promise((resolve, reject) => this.#requests.set(id, { resolve, reject, ...more }));
    this.#send([type, id, ...rest]);
    return { id, answer };
  }

  #receive(message) {
    switch (message[0]) {
      case EVENT: {
        const [, subscription, , details, args = [], kwargs = {}] = message;
        this.#handlers.get(subscription)?.(args, kwargs, details);
        break;
      }
      case SUBSCRIBED: {
        const [, id, subscription] = message;
        // Before the promise is looked at: the first event may be the next message.
        this.#handlers.set(subscription, this.#requests.get(id).handler);
        this.#settle(id)?.resolve(subscription);
        break;
      }
      case RESULT: {
        const [, id, details, args = [], kwargs = {}] = message;
        const result = Object.assign(args, { kwargs });
        if (details.progress) this.#requests.get(id)?.part?.(result);
        else this.#settle(id)?.resolve(result);
        break;
      }
      case ERROR: {
        const [, , id, , uri, args] = message;
        this.#settle(id)?.reject(new WampError(uri, args));
        break;
      }
    }
  }

  #settle(id) {
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    return request;
  }

  #send(message) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    const text = JSON.stringify(message);
    this.watch('sent', text);
    this.#socket.send(text);
  }
}

// ---- The page: the table of the database, kept up to date by the events that its triggers publish.

const EVENTS_SHOWN = 50, MESSAGES_SHOWN = 100;
const find = (id) => document.getElementById(id);
const rows = new Map();   // id of an item: its row in the table
let session = null;

function element(name, text = '', attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function tell(text, isWrong = false) {
  find('outcome').textContent = text;
  find('outcome').classList.toggle('wrong', isWrong);
}

// Whatever a button does: what the database refuses is told in its own words.
async function attempt(work) {
  if (!session) return tell('There is no connection at the moment.', true);
  try {
    await work(session);
  } catch (error) {
    tell(error.message, true);
  }
}

function prepend(list, child, most) {
  list.prepend(child);
  while (list.children.length > most) list.lastElementChild.remove();
}

function button(label, name, work) {
  const made = element('button', label, { type: 'button', 'aria-label': name });
  made.addEventListener('click', () => attempt(work));
  return made;
}

function changeStock(id, by) {
  return async (session) => {
    const [row] = await session.call('com.example.item.change', [], { id, by });
    tell(row ? `${row.name}: ${row.stock} in stock.` : 'Somebody has deleted it.', !row);
  };
}

function showItem({ id, name, stock, changed_by }) {
  let row = rows.get(id);
  if (!row) {
    row = element('tr', '', { 'data-item': id });
    const actions = element('td', '', { class: 'actions' });
    actions.append(
      button('+1', `One more of ${name}`, changeStock(id, 1)),
      button('−1', `One less of ${name}`, changeStock(id, -1)),
      button('Delete', `Delete ${name}`, async (session) => {
        await session.call('com.example.item.delete', [id]);
        tell(`${name} is deleted.`);
      }));
    row.append(element('th', '', { scope: 'row' }), element('td', '', { class: 'number' }), element('td'), actions);
    rows.set(id, row);
    const next = [...rows.keys()].filter((other) => other > id).sort((a, b) => a - b)[0];
    find('items').insertBefore(row, rows.get(next) ?? null);
  }
  row.children[0].textContent = name;
  row.children[1].textContent = stock;
  const others = changed_by ? `tab …${String(changed_by).slice(-4)}` : 'a program';
  row.children[2].textContent = changed_by === session?.id ? 'this tab' : others;
}

function removeItem(id) {
  rows.get(id)?.remove();
  rows.delete(id);
}

function flash(id) {
  const row = rows.get(id);
  if (!row) return;
  row.classList.remove('changed');
  void row.offsetWidth;   // so that the animation begins again
  row.classList.add('changed');
}

// Every change of the table, whoever made it: this tab, another one, or a program that writes to the file.
function onEvent(args, kwargs, details) {
  const kind = details.topic.split('.').pop();
  const { new: now, old: before } = kwargs;
  let text = `${kwargs.name} is sold out`;
  if (kind === 'on_delete') {
    removeItem(before.id);
    text = `${before.name} was deleted`;
  } else if (now) {
    showItem(now);
    flash(now.id);
    text = kind === 'on_insert' ? `${now.name} was added` : `${now.name}: ${before.stock} → ${now.stock}`;
  }
  const entry = element('li', `${text} `, { value: details._event_id, 'data-topic': details.topic });
  entry.append(element('code', details.topic));
  prepend(find('events'), entry, EVENTS_SHOWN);
}

async function showAll(session) {
  const [[items], [me]] = await Promise.all([session.call('com.example.item.list'), session.call('com.example.whoami')]);
  const there = new Set(items.map((item) => item.id));
  for (const id of [...rows.keys()]) if (!there.has(id)) removeItem(id);
  items.forEach(showItem);
  find('me').textContent = `session ${me.session}, user ${me.authid}, role ${me.authrole}`;
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// The router is a moment older than its database.
async function showAllOnceThere(session) {
  for (;;) {
    try {
      return await showAll(session);
    } catch (error) {
      if (!['wamp.error.no_such_procedure', 'wamp.error.unavailable'].includes(error.uri)) throw error;
      await sleep(200);
    }
  }
}

async function stayConnected() {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const url = `${scheme}://${location.host}${document.body.dataset.path}`;
  for (let pause = 500; ; pause = Math.min(2 * pause, 8000)) {
    let opened = null, reason;
    try {
      const over = new Promise((resolve) => { reason = resolve; });
      opened = await Session.open(url, 'realm1', { watch, ended: reason });
      // First, so that no change falls between the list and the first event.
      await opened.subscribe('com.example.item.', onEvent, { match: 'prefix' });
      session = opened;
      await showAllOnceThere(opened);
      document.body.dataset.state = 'open';
      find('state').textContent = `connected to ${url}`;
      pause = 500;
      reason = await over;
    } catch (error) {
      reason = error.message;
    }
    opened?.close();
    session = null;
    document.body.dataset.state = 'closed';
    find('state').textContent = `not connected: ${reason}. It is tried again.`;
    // Not all tabs at the same time.
    await sleep(pause * (0.5 + Math.random()));
  }
}

function watch(direction, text) {
  const shown = text.length > 300 ? `${text.slice(0, 300)}…` : text;
  prepend(find('messages'), element('li', `${direction === 'sent' ? '→' : '←'} ${shown}`), MESSAGES_SHOWN);
}

find('add').addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  attempt(async (session) => {
    const [id] = await session.call('com.example.item.add', [], {
      name: form.elements.name.value, stock: form.elements.stock.valueAsNumber });
    tell(`${form.elements.name.value} has the number ${id}.`);
    form.reset();
    form.elements.name.focus();
  });
});

let counting = null;
find('primes').addEventListener('submit', (event) => {
  event.preventDefault();
  const below = event.currentTarget.elements.below.valueAsNumber;
  const [bar, found, cancel] = ['bar', 'found', 'cancel'].map(find);
  let count = 0;
  const part = ([primes]) => {
    if (!primes?.length) return;
    count += primes.length;
    bar.value = primes.at(-1).prime;
    found.textContent = `${count} primes so far, the last one is ${primes.at(-1).prime}`;
  };
  attempt(async (session) => {
    counting?.abort();
    const mine = counting = new AbortController();
    cancel.disabled = false;
    bar.max = below;
    bar.value = 0;
    found.textContent = 'The first part is being computed.';
    try {
      const last = await session.call('com.example.primes', [below], {}, { part, signal: mine.signal });
      part(last);
      bar.value = below;
      found.textContent = `There are ${count} primes below ${below}.`;
    } catch (error) {
      found.textContent = error.uri === 'wamp.error.canceled' ? `Cancelled after ${count} primes.` : error.message;
    } finally {
      if (counting === mine) cancel.disabled = true;
    }
  });
});
find('cancel').addEventListener('click', () => counting?.abort());

stayConnected();
