#!/usr/bin/env node
// `npm run test:browser`: the operations' table, a training step and a picture in headless Chromium.
import { findChromium } from '../cli/setup.js';

const { testBrowser } = await import(new URL('../dist/test/browser/browser.js', import.meta.url).href);
process.exitCode = await testBrowser(findChromium().browser);
