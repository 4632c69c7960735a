// Two tests of socket.io-client put a false clock in place of the real one, and leave it there when they fail (they race
// a refused connection): then every test after them waits in vain. mocha loads this, so that none inherits a false clock.
"use strict";

exports.mochaHooks = {
  afterEach() {
    globalThis.setTimeout.clock?.uninstall();
  },
};
