import { execFileSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hashFile, openSource, writeFileAtomic } from '../../nn/files.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'files-'));
});
afterAll(() => rm(folder, { recursive: true }));

const text = (s: string) => new TextEncoder().encode(s);
const root = process.getuid?.() === 0;

/** Mounts a small tmpfs, or says why it can't: that takes root on Linux, and a container may forbid it all the same. */
function mount(at: string, options: string): string | undefined {
  if (!root || process.platform !== 'linux') return 'needs root on Linux';
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', at], { stdio: 'pipe' });
    return undefined;
  } catch (error) {
    return String((error as { stderr?: Buffer }).stderr);
  }
}

describe('writeFileAtomic', () => {
  it('writes chunks in order and replaces what was there', async () => {
    const file = path.join(folder, 'a');
    await writeFileAtomic(file, [text('old')]);
    await writeFileAtomic(
      file,
      (async function* () {
        yield text('new');
        yield new Uint8Array();
        yield text('er');
      })(),
    );
    expect(await readFile(file, 'utf8')).toBe('newer');
    expect(await readdir(folder)).toEqual(['a']);
  });

  it('leaves the old file and no other where making a chunk fails, and passes its error on', async () => {
    const file = path.join(folder, 'a');
    await writeFileAtomic(file, [text('old')]);
    const chunks = (function* () {
      yield text('half');
      throw new Error('device lost');
    })();
    await expect(writeFileAtomic(file, chunks)).rejects.toThrow(/^device lost$/);
    expect(await readFile(file, 'utf8')).toBe('old');
    expect(await readdir(folder)).toEqual(['a']);
  });

  it('says what is wrong with the place', async () => {
    await writeFile(path.join(folder, 'a'), 'old');
    await mkdir(path.join(folder, 'sub'));
    const write = (name: string) => writeFileAtomic(path.join(folder, name), [text('x')]);
    await expect(write('none/b')).rejects.toThrow(/^\[write\] cannot write .*none\/b: there is no such file or folder/);
    await expect(write('a/b')).rejects.toThrow('a part of its path is a file');
    await expect(write('sub')).rejects.toThrow('it is a folder');
    expect((await readdir(folder)).sort()).toEqual(['a', 'sub']);
  });

  it('survives a full disk', async (context) => {
    const disk = path.join(folder, 'disk');
    await mkdir(disk);
    const refused = mount(disk, 'size=64k');
    if (refused) return context.skip(`no small disk to fill: ${refused}`);
    try {
      const file = path.join(disk, 'model');
      await writeFileAtomic(file, [text('old')]);
      await expect(writeFileAtomic(file, [new Uint8Array(40_000), new Uint8Array(40_000)])).rejects.toThrow(
        /cannot write .*model: the disk is full: .*\(ENOSPC\); what was there before is unchanged/,
      );
      expect(await readFile(file, 'utf8')).toBe('old');
      expect(await readdir(disk)).toEqual(['model']);
    } finally {
      execFileSync('umount', [disk]);
    }
  });

  it('survives a read-only file system', async (context) => {
    const disk = path.join(folder, 'frozen');
    await mkdir(disk);
    const refused = mount(disk, 'size=64k');
    if (refused) return context.skip(`no file system to make read-only: ${refused}`);
    try {
      const file = path.join(disk, 'model');
      await writeFileAtomic(file, [text('old')]);
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      await expect(writeFileAtomic(file, [text('new')])).rejects.toThrow('the file system is read-only');
      expect(await readFile(file, 'utf8')).toBe('old');
    } finally {
      execFileSync('umount', [disk]);
    }
  });

  it('survives a read-only folder', async (context) => {
    if (root) return context.skip('root may write everywhere: the read-only file system stands for it');
    const locked = path.join(folder, 'locked');
    await mkdir(locked);
    await writeFile(path.join(locked, 'model'), 'old');
    await chmod(locked, 0o555);
    await expect(writeFileAtomic(path.join(locked, 'model'), [text('new')])).rejects.toThrow('permission is denied');
    expect(await readFile(path.join(locked, 'model'), 'utf8')).toBe('old');
    await chmod(locked, 0o755);
  });
});

describe('openSource', () => {
  it('reads ranges', async () => {
    const file = path.join(folder, 'ranges');
    await writeFile(file, 'abcdef');
    const source = await openSource(file);
    expect(source.size).toBe(6);
    expect(new TextDecoder().decode(await source.read(2, 5))).toBe('cde');
    await writeFile(file, 'abc');
    await expect(source.read(2, 5)).rejects.toThrow('became shorter while it was read');
    await source.close();
  });
});

describe('hashFile', () => {
  it('is the SHA-256 of what is in the file', async () => {
    const file = path.join(folder, 'hashed');
    await writeFile(file, 'abc');
    expect(await hashFile(file)).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'); // FIPS 180-4
    await expect(hashFile(folder)).rejects.toThrow(`[read] cannot read ${folder}: it is a folder`);
    await expect(hashFile(`${file}-not`)).rejects.toThrow('there is no such file');
  });
});
