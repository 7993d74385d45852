// The commands' TypeScript is built to dist/ by the set-up; `node cli/<name>.js` runs it from there.
import { existsSync } from 'node:fs';

/** Runs dist/cli/<name>.js, or says what to do when it has not been built. */
export async function runBuilt(name) {
  const built = new URL(`../dist/cli/${name}.js`, import.meta.url);
  if (existsSync(built)) {
    await import(built.href);
  } else {
    console.error(`cli/${name}.js: dist/ is not built: run npm start or npm run setup first`);
    process.exitCode = 1;
  }
}
