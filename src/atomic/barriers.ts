/**
 * Every step of the product that orders what a disk keeps: each `fsync`, `fsyncDir`, `syncfs`, and each rename on whose
 * being one step something depends. The port takes one of these names with each such call, so that a harness can take
 * out any one of them and see which promise breaks; `docs/durability.md` has the results. Values say what it is for.
 */
export const barriers = {
  'root.name': 'the store\'s root and every ancestor made for it is in the directory above',
  'file.rename': 'a small file is replaced in one step: the old one or the new one is there',
  'format.content': 'the format file is whole before it has its name',
  'format.name': 'a store that was opened is there after a cut, with its directories',
  'image.content': 'an image record is whole before it has its name',
  'image.name': 'an image record is there before a reference names it',
  'reference.content': 'a reference is whole before it has its name',
  'reference.name': 'a commit, once said, is there after a cut',
  'reference.removal': 'the older slot is gone before the newer goes, and both once the removal was said',
  'stage.directory': 'the stage is in the directory of stages, so that what is spooled in it is found again',
  'stage.content': 'the stage\'s record is whole before it has its name',
  'stage.name': 'the stage\'s record and directories are in the stage',
  'stage.checkpoint': 'staged layers are on disk before their download is deleted',
  'stage.commit': 'staged layers are on disk before they are moved into place',
  'layers.rename': 'a layer comes into place in one step',
  'layers.exchange': 'a damaged layer and its successor swap places in one step',
  'layers.aside': 'where names cannot be swapped: a damaged layer is set aside in one step',
  'layers.successor': 'where names cannot be swapped: its successor comes into its place in one step',
  'layers.name': 'layers are in place before a record names them',
  'layers.origin': 'layers are gone from the stage before a record names them, so that no disk puts them back there',
  'aside.rename': 'a layer that was set aside is back under its name in one step',
  'trash.rename': 'a tree disappears in one step',
  'trash.origin': 'a tree is gone from its place before its files are deleted',
  'gc.images': 'image records are gone before the layers that they name',
  'spool.name': 'the download\'s file is in the stage',
  'spool.frame': 'a frame that was received is on disk',
} as const;

/** The name of a barrier. */
export type Barrier = keyof typeof barriers;

/** Things written with `writeFileDurably`, each with barriers of its own for content and name. */
export type DurableKind = { [B in Barrier]: B extends `${infer Kind}.content` ? Kind : never }[Barrier];
