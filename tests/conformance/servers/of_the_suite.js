// The server that a suite brings along, in a process of its own, so that the tests can reach it through a proxy.
//
//   node of_the_suite.js HOOKS         HOOKS: the suite's file of mocha hooks; the server's port is its own matter
//
// The hooks of engine.io-client also bundle the client for browsers. No browser asks here: no bundler is needed.
"use strict";

const Module = require("module");

const load = Module._load;
const bundler = { rollup: async () => ({ write: async () => {}, close: async () => {} }) };

Module._load = function (name, ...rest) {
  if (name === "rollup") return bundler;
  if (/\/rollup\.config[.\w]*$/.test(name)) return [{}, { output: {} }];
  return load.call(this, name, ...rest);
};

require(process.argv[2]).mochaHooks.beforeAll();
