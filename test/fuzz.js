#!/usr/bin/env node
// `npm run fuzz`: random shapes, dtypes and values for every row of the operations' table.
const { main } = await import(new URL('../dist/test/fuzz/fuzz.js', import.meta.url).href);
await main();
