import { WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../basis.js';
import { firstOf } from '../content-chunks.js';

/** The error for content of either image that is shorter than it says. */
export function imageTooShort(): WhittleError {
  return new WhittleError('BASIS_DAMAGED', 'content of an image ends too early');
}

/** The first `sizeBytes` of a content of either image (default: all of it), or what there is. Throws BASIS_DAMAGED when it is shorter than it says. */
export function readContent(content: BasisContent, sizeBytes?: number): Buffer {
  return firstOf(content, imageTooShort, sizeBytes);
}
