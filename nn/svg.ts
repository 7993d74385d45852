/** SVG to PNG on any machine: with a font out of a package, because a fresh one may have none (Node). */
import { createRequire } from 'node:module';
import { Resvg } from '@resvg/resvg-js';

const font = createRequire(import.meta.url).resolve('dejavu-fonts-ttf/ttf/DejaVuSans.ttf');

/** Renders an SVG text as a PNG file's bytes, `zoom` times its own size. All text is set in DejaVu Sans. */
export function renderSvg(svg: string, zoom = 1): Uint8Array {
  return new Resvg(svg, {
    font: {
      loadSystemFonts: false,
      fontFiles: [font],
      defaultFontFamily: 'DejaVu Sans',
      sansSerifFamily: 'DejaVu Sans',
    },
    fitTo: { mode: 'zoom', value: zoom },
  })
    .render()
    .asPng();
}
