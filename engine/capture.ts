/** Capture and replay of a static step: what was recorded once is encoded again without the host's work in between. */
import type { Device } from './device.ts';
import { scope } from './scope.ts';
import type { Command } from './stream.ts';
import type { Reservation } from './memory.ts';

/**
 * A kernel's parameter: a number, or a variable, which a replay of a captured step looks up again: a learning rate, a
 * step's number.
 */
export type Parameter = number | { readonly value: number };

/** What follows from a parameter: changes with it. */
export const derived = (parameter: Parameter, f: (value: number) => number): Parameter =>
  typeof parameter === 'number'
    ? f(parameter)
    : {
        get value() {
          return f(parameter.value);
        },
      };

/** A captured step: its commands, its memory, and the tensors that it fills. */
export class Replay<T> {
  /** What the body returned: the same tensors after every run, with new content. */
  readonly result: T;
  readonly #device: Device;
  readonly #commands: readonly Command[];
  readonly #memory: Reservation;

  constructor(device: Device, result: T, commands: readonly Command[], memory: Reservation) {
    this.#device = device;
    this.result = result;
    this.#commands = commands;
    this.#memory = memory;
  }

  get dispatches(): number {
    return this.#commands.filter((command) => 'kernel' in command).length;
  }

  /** Records the step once more. Inputs are what their tensors and variables hold now. */
  run(): void {
    if (this.#memory.released) throw new Error('[capture] a released step cannot be run again');
    this.#device.stream.replay(this.#commands);
  }

  /** Gives the step's memory back; its result must not be used afterwards. */
  release(): void {
    this.#device.memory.unreserve(this.#memory);
  }
}

/**
 * Runs `body` (synchronous) and keeps what it recorded, to be run again: WebGPU has no bundles of compute commands, so
 * a replay encodes the same pipelines, bind groups and parameters anew, without operations, tape or allocation.
 *
 * The body's shapes must not change from step to step. What does change is written into tensors made before (`write`),
 * or given to kernels as a variable (`Parameter`). Memory taken inside belongs to the step until `release`, and tensors returned hold
 * each run's result. Host values uploaded inside are constants of the step. Throws where the body reads values back.
 */
export function capture<T>(device: Device, body: () => T): Replay<T> {
  const { memory } = device;
  const reservation = memory.reserve();
  device.stream.record();
  let result: T;
  try {
    result = scope(device, body);
    memory.settle(); // what is left is the step's work: results, and what others hold, such as gradients
  } catch (error) {
    device.stream.recorded();
    memory.endReservation();
    memory.unreserve(reservation);
    throw error;
  }
  const commands = device.stream.recorded();
  memory.endReservation();
  return new Replay(device, result, commands, reservation);
}
