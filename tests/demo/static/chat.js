// The chat page: one client that is you, and as many more as you like.
//
//   you     a plain io(): long-polling first, then WebSocket; the affinity cookie brings a reload
//           of the page back to the same pod
//   fleet   clients that this page opens for show.  They share the browser's cookies, so each
//           names itself in the query (`client=…`), which the demo's proxy hashes (hash_by).
'use strict';

const ROOMS = ['lobby', 'kitchen', 'engine room', 'observatory'];
const COLOURS = ['#0e9aa7', '#e08e0b', '#8a63d2', '#3c9a5f', '#d2577a', '#4a7fd6'];
const ADJECTIVES = ['swift', 'quiet', 'amber', 'brave', 'early', 'lucky', 'merry', 'northern', 'patient', 'sunny'];
const ANIMALS = ['otter', 'heron', 'badger', 'lynx', 'finch', 'marten', 'ibis', 'hare', 'puffin', 'stoat'];
const LINES = [
  'mind the gap', 'all aboard', 'tickets, please', 'is this seat taken?', 'next stop: another pod',
  'the view is lovely from here', 'who ordered the tea?', 'we are running on time', 'hold the door',
  'greetings from the last carriage',
];
const KEPT = 300;              // messages kept on screen, per room
const ROLL_CALL_GRACE = 10000; // a pod that is silent for so long has no members any more
// A browser opens six connections to one host for plain requests and a polling client holds one
// of them nearly all the time, so only a few may stay on polling or they would starve the rest.
const POLLING_CLIENTS = 3;
const FLEET_MAX = 60;

const $ = id => document.getElementById(id);
const pick = list => list[Math.floor(Math.random() * list.length)];
const name = sessionStorage.name ||= `${pick(ADJECTIVES)} ${pick(ANIMALS)}`;
const visitor = new URLSearchParams(location.search).get('client');

let room = ROOMS[0];
let pod = null;
const messages = new Map(ROOMS.map(r => [r, []]));
const unread = new Map(ROOMS.map(r => [r, 0]));
const rolls = new Map(ROOMS.map(r => [r, new Map()])); // room -> pod -> {members, heard}
const fleet = [];

function colour(podName) {
  if (!podName) return 'var(--soft)';
  const number = /(\d+)$/.exec(podName);
  let h = 0;
  for (const c of podName) h = (h * 31 + c.charCodeAt(0)) >>> 0;
  return COLOURS[(number ? Number(number[1]) - 1 : h) % COLOURS.length];
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function chip(podName, text) {
  const e = element('span', 'chip', text ?? podName);
  e.style.setProperty('--pod', colour(podName));
  return e;
}

// ---------------------------------------------------------------- you

const socket = io({ auth: { name }, query: visitor ? { client: visitor } : {} });

function showYou() {
  const you = $('you');
  you.classList.toggle('on', socket.connected);
  if (!socket.connected) {
    you.textContent = 'reconnecting…';
    return;
  }
  you.style.setProperty('--pod', colour(pod));
  you.textContent = `${name} · on ${pod ?? '…'} · ${socket.io.engine?.transport.name ?? ''}`;
}

socket.on('connect', () => {
  socket.io.engine.on('upgrade', showYou);
  for (const r of ROOMS) socket.emit('join', { room: r });
  showYou();
});
socket.on('hello', about => {
  if (pod && pod !== about.pod) note(`your session moved from ${pod} to ${about.pod}`);
  pod = about.pod;
  const [proxy, broker] = about.status_ports;
  if (proxy) $('status-proxy').href = `http://${location.hostname}:${proxy}/`;
  if (broker) $('status-broker').href = `http://${location.hostname}:${broker}/`;
  showYou();
});
socket.on('disconnect', reason => {
  showYou();
  note(`connection lost (${reason})`);
});

// ---------------------------------------------------------------- messages and rooms

function note(text) {
  add(room, { note: text });
}

function render(m) {
  const li = element('li');
  if (m.note) {
    li.append(element('div', 'note', m.note));
    return li;
  }
  const who = element('div', 'who');
  const path = element('span', 'path');
  path.append(chip(m.pod), ' → ', chip(m.reader));
  path.title = `sent through ${m.pod}, read on ${m.reader}`;
  who.append(element('b', '', m.from === socket.id ? `${m.name} (you)` : m.name), path);
  const text = element('div', 'text', m.text);
  text.style.setProperty('--pod', colour(m.pod));
  li.append(who, text);
  return li;
}

function add(to, m) {
  const list = messages.get(to);
  if (!list) return;
  list.push(m);
  if (list.length > KEPT) list.shift();
  if (to !== room) {
    if (!m.note) unread.set(to, unread.get(to) + 1);
    showRooms();
    return;
  }
  const ol = $('messages');
  const atEnd = ol.scrollHeight - ol.scrollTop - ol.clientHeight < 60;
  ol.append(render(m));
  while (ol.children.length > KEPT) ol.firstChild.remove();
  if (atEnd) ol.scrollTop = ol.scrollHeight;
}

function showRooms() {
  $('rooms').replaceChildren(...ROOMS.map(r => {
    const b = element('button', '', r);
    b.type = 'button';
    b.setAttribute('role', 'tab');
    b.setAttribute('aria-selected', r === room);
    if (unread.get(r)) b.append(element('span', 'unread', unread.get(r)));
    b.onclick = () => {
      room = r;
      unread.set(r, 0);
      showRooms();
      showMembers();
      $('messages').replaceChildren(...messages.get(r).map(render));
      $('messages').scrollTop = $('messages').scrollHeight;
      $('text').focus();
    };
    return b;
  }));
}

socket.on('said', m => add(m.room, { ...m, reader: pod }));

$('say').onsubmit = event => {
  event.preventDefault();
  const text = $('text').value.trim();
  if (!text) return;
  socket.emit('say', { room, text });
  $('text').value = '';
};

// ---------------------------------------------------------------- who is here

socket.on('members', roll => {
  rolls.get(roll.room)?.set(roll.pod, { members: roll.members, heard: Date.now() });
  showMembers();
});

function showMembers() {
  const chips = [];
  for (const [podName, roll] of [...rolls.get(room)].sort()) {
    if (Date.now() - roll.heard > ROLL_CALL_GRACE) {
      rolls.get(room).delete(podName);
      continue;
    }
    for (const member of roll.members) {
      const e = chip(podName, member.name);
      e.title = `on ${podName}`;
      if (member.id === socket.id) e.classList.add('me');
      chips.push(e);
    }
  }
  $('members').replaceChildren(...chips);
  $('member-count').textContent = chips.length || '';
}
setInterval(showMembers, 3000);

// ---------------------------------------------------------------- more clients

function transportOf(index) {
  const polling = fleet.filter(f => f.want === 'polling').length;
  if (index % 4 === 1 && polling < POLLING_CLIENTS) return 'polling';
  return index % 2 ? 'websocket' : 'upgrade';
}

function showClient(f) {
  const transport = f.socket.io.engine?.transport?.name;
  f.tile.style.setProperty('--pod', colour(f.pod));
  f.tile.classList.toggle('off', !f.socket.connected);
  f.tile.classList.toggle('bad', f.errors > 0);
  f.tile.querySelector('b').textContent = f.received;
  f.tile.querySelector('span').textContent = f.socket.connected ? (transport === 'websocket' ? 'ws' : 'polling') : '…';
  f.tile.title = `${f.name}: ${f.pod ?? 'no pod yet'}, ${transport ?? ''}, ${f.received} messages, ${f.errors} errors`;
}

function openClient() {
  const want = transportOf(fleet.length);
  const f = { want, name: `${pick(ADJECTIVES)} ${pick(ANIMALS)}`, received: 0, errors: 0, pod: null };
  f.socket = io({
    forceNew: true,
    auth: { name: f.name },
    query: { client: Math.random().toString(36).slice(2) },
    transports: want === 'upgrade' ? ['polling', 'websocket'] : [want],
  });
  f.tile = element('div', 'tile off');
  f.tile.append(element('b', '', '0'), element('span', '', '…'));
  f.socket.on('hello', about => {
    f.pod = about.pod;
    showClient(f);
    showTally();
  });
  f.socket.on('connect', () => {
    f.socket.io.engine.on('upgrade', () => showClient(f));
    for (const r of ROOMS) f.socket.emit('join', { room: r });
    showClient(f);
  });
  f.socket.on('connect_error', () => { f.errors++; showClient(f); });
  f.socket.on('disconnect', () => { showClient(f); showTally(); });
  f.socket.on('said', () => {
    f.received++;
    f.tile.classList.remove('flash');
    void f.tile.offsetWidth; // lets the animation begin again
    f.tile.classList.add('flash');
    showClient(f);
  });
  fleet.push(f);
  $('fleet').append(f.tile);
}

function showTally() {
  const pods = new Map();
  for (const f of fleet) if (f.socket.connected && f.pod) pods.set(f.pod, (pods.get(f.pod) ?? 0) + 1);
  $('fleet-count').textContent = fleet.length || '';
  $('tally').replaceChildren(...[...pods].sort().map(([p, n]) => {
    const e = element('span');
    e.append(chip(p), ` ${n}`);
    return e;
  }));
  $('more').disabled = fleet.length >= FLEET_MAX;
  $('fewer').disabled = $('talk').disabled = !fleet.length;
}

let talking = null;
function talk(on) {
  clearInterval(talking);
  talking = on ? setInterval(() => {
    const f = pick(fleet);
    if (f?.socket.connected) f.socket.emit('say', { room: Math.random() < 0.7 ? room : pick(ROOMS), text: pick(LINES) });
  }, 900) : null;
  $('talk').setAttribute('aria-pressed', on);
}

$('more').onclick = () => {
  for (let i = 0; i < 10 && fleet.length < FLEET_MAX; i++) openClient();
  showTally();
};
$('fewer').onclick = () => {
  talk(false);
  for (const f of fleet.splice(0)) {
    f.socket.disconnect();
    f.tile.remove();
  }
  showTally();
};
$('talk').onclick = () => talk(talking === null);
$('tab').onclick = () => window.open(`/?client=${Math.random().toString(36).slice(2)}`, '_blank', 'noopener');

showRooms();
showTally();
