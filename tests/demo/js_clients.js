// Many socket.io-client clients in one Node process, told what to do line by line (JSON).
//
//   in   {"url", "clients": [{"name", "transport", "rooms", "url"?}], "seconds"}    first line
//   out  {"event": "connected", "clients": {name: {connected, pod, transport, sid}}}
//   in   {"do": "say", "each": 3}       every client says each lines to each of its rooms, in order;
//                                       the number of a line is "NAME:1", "NAME:2", …
//   out  {"event": "said", "sent": [[room, number], …], "failed": [name, …]}
//   in   {"do": "echo"}                 out  {"event": "echoed", "good": n, "bad": [name, …]}
//   in   {"do": "call", "event", "data"}    out  {"event": "answers", "answers": {name: answer}}
//   in   {"do": "report"}               out  {"event": "report", "clients": {name: {connected,
//                                             received: [[room, number], …], errors: […]}}}
//   in   {"do": "close"}                out  {"event": "closed"}, and the program ends
//
// A transport is polling, websocket, or upgrade (polling first).  No client has a cookie jar and
// none reconnects, so an answer "session unknown" ends a client and is seen.  An event `ask` is
// acknowledged with the client's name and the data.  python_clients.py is its twin.
// socket.io-client is found through NODE_PATH.
'use strict';

const readline = require('readline');
const { io } = require('socket.io-client');

const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] };
const clients = [];
let seconds = 20;

const tell = object => process.stdout.write(JSON.stringify(object) + '\n');
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

function complain(client, error) {
  const status = error.description ?? error.context?.status ?? '';
  const body = error.context?.responseText ?? '';
  client.errors.push(`${error.message ?? error} ${status} ${body}`.trim().slice(0, 300));
}

function open(url, wish) {
  const client = { ...wish, errors: [], received: [], pod: null, closing: false };
  client.ready = new Promise(resolve => { client.isReady = resolve; });
  const socket = io(url, {
    forceNew: true,
    reconnection: false,
    transports: TRANSPORTS[wish.transport],
    auth: { name: wish.name },
    timeout: seconds * 1000,
  });
  client.socket = socket;
  socket.on('connect_error', error => {
    complain(client, error);
    client.isReady();
  });
  socket.on('disconnect', (reason, details) => {
    if (!client.closing) complain(client, { message: `disconnected: ${reason}`, ...details });
    client.isReady();
  });
  socket.on('hello', about => { client.pod = about.pod; });
  socket.on('said', line => client.received.push([line.room, line.number]));
  socket.on('ask', (data, acknowledge) => acknowledge(wish.name, data));
  socket.on('connect', async () => {
    socket.io.engine.on('upgradeError', error => complain(client, error));
    try {
      for (const room of wish.rooms) {
        const answer = await socket.timeout(seconds * 1000).emitWithAck('join', { room });
        client.pod = answer.pod;
      }
      const deadline = Date.now() + seconds * 1000;
      while (wish.transport === 'upgrade' && socket.connected && Date.now() < deadline &&
             socket.io.engine?.transport.name !== 'websocket') await sleep(10);
    } catch (error) {
      complain(client, error);
    }
    client.isReady();
  });
  return client;
}

async function say(client, each, sent) {
  for (let i = 1; i <= each; i++) {
    const number = `${client.name}:${i}`;
    for (const room of client.rooms) {
      const answer = await client.socket.timeout(seconds * 1000)
        .emitWithAck('say', { room, number, text: `line ${number}` });
      if (answer.refused) throw new Error(`the pod refused a line: ${answer.refused}`);
      sent.push([room, number]);
    }
  }
}

async function echo(client) {
  const data = { text: `héllo ${client.name}`, bytes: Buffer.from([0, 1, 254, 255]) };
  const back = await client.socket.timeout(seconds * 1000).emitWithAck('echo', data);
  if (back.text !== data.text || Buffer.compare(Buffer.from(back.bytes), data.bytes) !== 0) {
    throw new Error('the echo differs');
  }
}

async function all(what) {
  const bad = [];
  await Promise.all(clients.map(async client => {
    try {
      await what(client);
    } catch (error) {
      complain(client, error);
      bad.push(client.name);
    }
  }));
  return bad;
}

async function obey(order) {
  if (order.clients) {
    seconds = order.seconds ?? seconds;
    for (const wish of order.clients) clients.push(open(wish.url ?? order.url, wish));
    await Promise.all(clients.map(client => Promise.race([client.ready, sleep(seconds * 1000)])));
    tell({
      event: 'connected',
      clients: Object.fromEntries(clients.map(client => [client.name, {
        connected: client.socket.connected,
        pod: client.pod,
        transport: client.socket.io.engine?.transport?.name ?? null,
        sid: client.socket.id ?? null,
      }])),
    });
  } else if (order.do === 'say') {
    const sent = [];
    const failed = await all(client => say(client, order.each, sent));
    tell({ event: 'said', sent, failed });
  } else if (order.do === 'echo') {
    const bad = await all(echo);
    tell({ event: 'echoed', good: clients.length - bad.length, bad });
  } else if (order.do === 'call') {
    const answers = {};
    await all(async client => {
      answers[client.name] = await client.socket.timeout(seconds * 1000).emitWithAck(order.event, order.data);
    });
    tell({ event: 'answers', answers });
  } else if (order.do === 'report') {
    tell({
      event: 'report',
      clients: Object.fromEntries(clients.map(client => [client.name, {
        connected: client.socket.connected, received: client.received, errors: client.errors,
      }])),
    });
  } else if (order.do === 'close') {
    for (const client of clients) {
      client.closing = true;
      client.socket.disconnect();
    }
    await sleep(100);
    tell({ event: 'closed' });
    process.exit(0);
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await obey(JSON.parse(line));
  }
  process.exit(0);
})();
