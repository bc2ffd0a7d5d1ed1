import { isJsonObject, mediaTypes, parseJsonObject, parseManifest, sha256Digest } from '../../../oci/index.js';
import { maxConfigBytes } from '../../../core/limits.js';
import type { Target } from '../../store/target.js';

/** The name that an image has in podman while its layers come in; its tag begins the image ID that it is going to have. */
export const unfinishedRepository = 'localhost/whittle-unfinished';

/** The name of the unfinished image of a target. */
export function unfinishedName(target: Target): string {
  return `${unfinishedRepository}:${hex(target.configDigest).slice(0, 24)}`;
}

function hex(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/**
 * The config of an image of the first `count` layers of the target: podman keeps layers only for an image, and one that
 * is not whole must have another ID. The same for the same target, so that a later pull finds it.
 */
export function unfinishedConfig(target: Target, count: number): Buffer {
  const { architecture, os, variant } = parseJsonObject(target.config, 'the image config', maxConfigBytes);
  return Buffer.from(JSON.stringify({
    ...(typeof architecture === 'string' ? { architecture } : {}), ...(typeof os === 'string' ? { os } : {}), ...(typeof variant === 'string' ? { variant } : {}),
    config: {}, rootfs: { type: 'layers', diff_ids: target.diffIds.slice(0, count) },
    history: target.diffIds.slice(0, count).map(() => ({ created_by: `whittle: unfinished pull of ${target.configDigest}` })),
  }));
}

/** The image IDs, as hex, that unfinished images of the target have. */
export function unfinishedIds(target: Target): ReadonlySet<string> {
  return new Set(target.diffIds.map((_, layer) => hex(sha256Digest(unfinishedConfig(target, layer + 1)))));
}

/** A manifest of unpacked layers for a config of the target or of an unfinished image of it, in the form that the target has. */
export function plainManifest(target: Target, config: Buffer, layers: readonly { readonly diffId: string; readonly sizeBytes: number }[]): { readonly manifest: Buffer; readonly mediaType: string } {
  const original = parseManifest(target.manifest, 'image manifest', target.manifestMediaType);
  const isDocker = original.mediaType === mediaTypes.dockerManifest;
  const mediaType = isDocker ? mediaTypes.dockerManifest : mediaTypes.ociManifest;
  const layerType = isDocker ? mediaTypes.dockerLayerTar : mediaTypes.ociLayerTar;
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType,
    config: { mediaType: isDocker ? mediaTypes.dockerConfig : mediaTypes.ociConfig, digest: sha256Digest(config), size: config.length },
    layers: layers.map(({ diffId, sizeBytes }) => ({ mediaType: layerType, digest: diffId, size: sizeBytes })),
    ...annotationsOf(target),
  }));
  return { manifest, mediaType };
}

/** Annotations of the published manifest say what the image is, and podman shows them. */
function annotationsOf(target: Target): { readonly annotations?: unknown } {
  const { annotations } = parseJsonObject(target.manifest, 'the image manifest', target.manifest.length);
  return isJsonObject(annotations) ? { annotations } : {};
}
