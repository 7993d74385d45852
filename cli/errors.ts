import { ConfigError } from './config.ts';

/** Runs a command's body; an error is shown as one line, with its stack only where it is nobody's input but our fault. */
export async function main(body: () => Promise<void>): Promise<void> {
  try {
    await body();
    // Dawn keeps the event loop alive.
    process.exit();
  } catch (error) {
    const expected = error instanceof ConfigError || (error instanceof Error && /^\[[\w ]+\]/.test(error.message));
    console.error(expected ? `error: ${error.message}` : error);
    process.exit(1);
  }
}
