#!/usr/bin/env node
// `npm run test:browser`: the operations' table, a training step and a picture in headless Chromium.
import { findChromium } from '../cli/setup.js';

if (process.argv.length > 2) {
  console.error('npm run test:browser takes no arguments: it always runs everything');
  process.exit(process.argv[2] === '--help' ? 0 : 2);
}

const { testBrowser } = await import(new URL('../dist/test/browser/browser.js', import.meta.url).href);
process.exitCode = await testBrowser(findChromium().browser);
