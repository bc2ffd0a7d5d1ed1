"""Prints what a file tree holds, one entry a line, so that two trees can be compared as text.

usage: tree.py DIR NOW      NOW: times of directories from this second on are those of the unpacking, and print as "new"

Names and link targets are hex, since they may be any bytes. Hard links print the name of the first of them.
"""
import hashlib, os, stat, sys

top, now = os.fsencode(sys.argv[1]), int(sys.argv[2])
first = {}


def describe(path, name):
    facts = os.lstat(path)
    kind = stat.S_IFMT(facts.st_mode)
    fresh = stat.S_ISDIR(facts.st_mode) and facts.st_mtime_ns >= now * 10**9
    words = [name.hex(), oct(facts.st_mode), str(facts.st_uid), str(facts.st_gid), 'new' if fresh else str(facts.st_mtime_ns)]
    if stat.S_ISLNK(kind):
        words.append(os.readlink(path).hex())
    if stat.S_ISREG(kind):
        digest = hashlib.sha256()
        with open(path, 'rb') as content:
            for block in iter(lambda: content.read(1 << 20), b''):
                digest.update(block)
        words += [str(facts.st_size), digest.hexdigest(), 'links=' + first.setdefault((facts.st_dev, facts.st_ino), name).hex()]
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        words.append('%d:%d' % (os.major(facts.st_rdev), os.minor(facts.st_rdev)))
    for key in sorted(os.listxattr(path, follow_symlinks=False)):
        words.append('%s=%s' % (key, os.getxattr(path, key, follow_symlinks=False).hex()))
    return ' '.join(words)


def walk(path, name):
    print(describe(path, name))
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for child in sorted(os.listdir(path)):
            walk(os.path.join(path, child), os.path.join(name, child) if name else child)


sys.setrecursionlimit(10000)
walk(top, b'')
