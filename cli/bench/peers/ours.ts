/** This project, in the comparison. */
import { backward, clearGradient, release, scope, tensor } from '../../../engine/index.ts';
import type { Tensor } from '../../../engine/index.ts';
import { openNodeDevice } from '../../../engine/node.ts';
import { callCase } from '../operations.ts';
import { describeCase } from '../cases.ts';
import { caseData, sumOfSquares } from './engine.ts';
import type { Open } from './engine.ts';

export const open: Open = async () => {
  const device = await openNodeDevice();
  return (c, pass) => {
    const data = caseData(c);
    const upload = () => data.inputs.map(({ data, shape }) => tensor(device, data, shape));
    const resident = upload();
    const upstream = tensor(device, data.upstream, describeCase(c).output);
    const read = async (...tensors: Tensor[]) => {
      const values = await Promise.all(tensors.map((result) => result.read()));
      release(...tensors);
      return values;
    };
    const differentiate = () => {
      for (const input of resident) input.requiresGrad = true;
      backward(callCase(c, resident), upstream);
    };
    const runs = {
      forward: async () => {
        scope(device, () => void callCase(c, resident));
        await device.drain();
      },
      copies: async () => void (await read(scope(device, () => callCase(c, upload())))),
      gradient: async () => {
        scope(device, () => {
          differentiate();
          resident.forEach(clearGradient);
        });
        await device.drain();
      },
    };
    const check = async () => {
      if (pass !== 'gradient') return sumOfSquares(...(await read(scope(device, () => callCase(c, resident)))));
      scope(device, differentiate);
      const gradients = await Promise.all(resident.map((input) => input.grad!.read()));
      resident.forEach(clearGradient);
      return sumOfSquares(...gradients);
    };
    return Promise.resolve({ run: runs[pass], check, release: () => release(...resident, upstream) });
  };
};
