// The protocol suites await one WebSocket message after another with a listener for one event each: two messages in
// one TCP segment, of which `ws` tells in the same turn, lose them the second. Here each message gets a turn of its
// own, as in browsers. mocha loads this before a suite, which then sets WebSocket.
"use strict";

let OneMessageATurn;

Object.defineProperty(globalThis, "WebSocket", {
  configurable: true,
  get: () => OneMessageATurn,
  set(WebSocket) {
    OneMessageATurn = class extends WebSocket {
      constructor(address, protocols, options) {
        super(address, protocols, { ...options, allowSynchronousEvents: false });
      }
    };
  },
});
