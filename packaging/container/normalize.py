"""Writes an image archive of docker anew, without the random names of the containers that built it: the same bytes.

    normalize.py ARCHIVE.tar OUT.tar.gz

Of the archive stay the layers, the config and the manifest; the rest is for docker before 1.10.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile


def main(archive: str, out: str) -> None:
    """Read one archive and write the other."""
    with tarfile.open(archive) as old, open(out, "wb") as file:  # noqa: PTH123 - as gzip wants it
        (manifest,) = json.loads(read(old, "manifest.json"))
        config = json.loads(read(old, manifest["Config"]))
        config.pop("container", None)
        for part in ("config", "container_config"):
            config.get(part, {}).pop("Hostname", None)
        content = json.dumps(config, sort_keys=True).encode()
        manifest["Config"] = f"{hashlib.sha256(content).hexdigest()}.json"
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new,
        ):
            for name in dict.fromkeys(manifest["Layers"]):
                layer = tarfile.TarInfo(name)
                layer.size = old.getmember(name).size
                new.addfile(layer, old.extractfile(name))
            add(new, manifest["Config"], content)
            add(new, "manifest.json", json.dumps([manifest]).encode())


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of a file of an archive."""
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file.read()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a file into an archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
