import { ConfigError } from './config.ts';

/** What a shell sees of a program whose output nobody reads any more (128 + SIGPIPE). */
const BROKEN_PIPE = 141;

/**
 * Runs a command's body; an error is shown as one line, with its stack only where it is nobody's input but our fault. Where
 * whoever reads the output leaves, as `head` does, the command ends without a word.
 */
export async function main(body: () => Promise<void>): Promise<void> {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit(BROKEN_PIPE);
    });
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
