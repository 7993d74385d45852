#!/usr/bin/env node
// `npm run test:adapters`: the operations' table on every software adapter, with each optional feature switched off in turn.
import { findChromium } from '../cli/setup.js';

if (process.argv.length > 2) {
  console.error('npm run test:adapters takes no arguments: it always runs everything');
  process.exit(process.argv[2] === '--help' ? 0 : 2);
}

const { testAdapters } = await import(new URL('../dist/test/adapters/adapters.js', import.meta.url).href);
process.exitCode = await testAdapters(findChromium().swiftshader);
