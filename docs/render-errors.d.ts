import type { errorCodes, exitCodes } from '../src/core/error-codes.js';

/** docs/errors.md as text, from the tables of src/core/error-codes.ts. */
export function renderErrors(codes: typeof errorCodes, exits: typeof exitCodes): string;
