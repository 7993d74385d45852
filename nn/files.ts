/** Files on disk (Node): whole-or-nothing writes, and reading a large file by ranges. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { encodeSafetensors, readSafetensors, type ByteSource, type Safetensors, type Writable } from './safetensors.ts';

const REASONS: Record<string, string> = {
  ENOSPC: 'the disk is full: free some space or choose another folder',
  EDQUOT: 'the disk quota is used up: free some space or choose another folder',
  EFBIG: 'the file is larger than this file system or this process may write',
  EROFS: 'the file system is read-only: choose another folder',
  EACCES: 'permission is denied: change its permissions or choose another folder',
  EPERM: 'permission is denied: change its permissions or choose another folder',
  ENOENT: 'there is no such file or folder',
  ENOTDIR: 'a part of its path is a file, not a folder',
  EISDIR: 'it is a folder, not a file',
};

/** Says why a file system call failed, in words where the code is a usual one. */
export function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code && REASONS[code] ? `${REASONS[code]} (${code})` : String(message ?? error);
}

/** Pushes a folder's entries (a rename in it) to the disk. Windows cannot open folders; there the rename stands alone. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a folder and those above it. (Node's own recursive form never returns where a file system such as /proc refuses.) */
export async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || path.dirname(folder) === folder) throw error;
    await makeFolder(path.dirname(folder));
    await mkdir(folder);
  }
}

let counter = 0;

/**
 * Writes a file whole or not at all: the chunks go to a temporary file beside it, which is synced to the disk and then
 * renamed. Where anything fails (also the making of a chunk), the file that was there before is untouched and the
 * temporary one is removed.
 */
export async function writeFileAtomic(
  file: string,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  const temporary = `${file}.${process.pid}-${counter++}.tmp`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'wx');
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length;) {
        at += (await handle.write(chunk, at, Math.min(chunk.length - at, MOST_AT_ONCE))).bytesWritten;
      }
    }
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, file);
    await syncFolder(path.dirname(path.resolve(file)));
  } catch (error) {
    await handle?.close().catch(() => {});
    await rm(temporary, { force: true }).catch(() => {});
    if ((error as NodeJS.ErrnoException).code === undefined) throw error; // a chunk's own error already says what it is
    throw new Error(`[write] cannot write ${file}: ${reason(error)}; what was there before is unchanged`, {
      cause: error,
    });
  }
}

/** One read or write call moves less than 2 GiB. */
const MOST_AT_ONCE = 1 << 30;

/** A file as a source of byte ranges. Close it when done. */
export async function openSource(file: string): Promise<ByteSource> {
  const handle = await open(file, 'r').catch((error: unknown) => {
    throw new Error(`[read] cannot open ${file}: ${reason(error)}`, { cause: error });
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new Error(`[read] ${file} is not a file`);
    return {
      name: file,
      size: stat.size,
      async read(start, end) {
        const bytes = new Uint8Array(end - start);
        for (let at = 0; at < bytes.length;) {
          const length = Math.min(bytes.length - at, MOST_AT_ONCE);
          const { bytesRead } = await handle.read(bytes, at, length, start + at);
          if (bytesRead === 0) throw new Error(`[read] ${file} became shorter while it was read`);
          at += bytesRead;
        }
        return bytes;
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The SHA-256 of a file, in hexadecimal digits; by stream, since `readFile` refuses files of 2 GiB and more. */
export async function hashFile(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash).catch((error: unknown) => {
    throw new Error(`[read] cannot read ${file}: ${reason(error)}`, { cause: error });
  });
  return hash.digest('hex');
}

/** Opens a safetensors file: reads and checks its header; tensors are read when asked for. Close it when done. */
export async function openSafetensors(file: string): Promise<Safetensors> {
  const source = await openSource(file);
  try {
    return await readSafetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Writes a safetensors file, whole or not at all (see `writeFileAtomic` and `encodeSafetensors`). */
export async function saveSafetensors(
  file: string,
  tensors: ReadonlyMap<string, Writable>,
  metadata: Record<string, string> = {},
): Promise<void> {
  await writeFileAtomic(file, encodeSafetensors(tensors, metadata));
}
