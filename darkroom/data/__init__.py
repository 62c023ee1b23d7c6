"""From what a user named to a data set: labelled, hashed, split.

    source_names.py   what a source string means
    local.py          a source on this machine or the web, as a local folder; the embedded digits
    download.py       http(s) archives, fetched once and resumed
    archives.py       entries of zip and tar files, hostile ones included; zip_names.py: their names
    listing.py        the files of a source by path and size, and which paths are safe
    image_folder.py   class folders as labelled files
    label_files.py    files with a row an image, as labelled files
    labels.py         files with classes and given splits, and how splits are called
    layout.py         whether folders or files say what an image is
    polyvore.py       the Polyvore data set as labelled files
    assembly.py       the splits that a source lacks; a local folder as a data set
    hashes.py         SHA-256 of many files, remembered
    dataset.py        the data set
    shards.py         a data set as a few tar archives, and back
    inputs.py         images to be classified, wherever they are; found_image.py: one of them

Everything but S3, which is darkroom/backends/storage.
"""
