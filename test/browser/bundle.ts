/** A page's script with all that it imports as one module, by esbuild, and the kernels' texts beside it. */
import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { build } from 'esbuild';
import type { Plugin } from 'esbuild';

/**
 * Bundles `entry` of the sources under `root` into `target`/page.js. A module finds its `.wgsl` files by its own address,
 * which it loses in a bundle: there, `import.meta.url` becomes the place that the module would have beside the bundle, and
 * the `.wgsl` files of the modules' folders are copied to those places.
 */
export async function bundle(root: string, entry: string, target: string): Promise<void> {
  const folders = new Set<string>();
  const places: Plugin = {
    name: 'places',
    setup(build) {
      build.onLoad({ filter: /[\\/]kernels[\\/].*\.ts$/ }, async ({ path: file }) => {
        const text = await readFile(file, 'utf8');
        const place = path.relative(root, file).split(path.sep).join('/');
        folders.add(path.dirname(place));
        const contents = text.replaceAll('import.meta.url', `new URL('./${place}', import.meta.url).href`);
        return { contents, loader: 'ts' };
      });
    },
  };
  await build({
    entryPoints: [path.join(root, entry)],
    outfile: path.join(target, 'page.js'),
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'chrome120',
    plugins: [places],
    logLevel: 'warning',
  });
  for (const folder of folders) {
    await mkdir(path.join(target, folder), { recursive: true });
    for (const file of await readdir(path.join(root, folder)))
      if (file.endsWith('.wgsl')) await copyFile(path.join(root, folder, file), path.join(target, folder, file));
  }
}
