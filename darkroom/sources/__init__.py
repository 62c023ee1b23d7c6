"""Where images come from, and how each kind of source becomes a labelled, hashed data set.

    source_names.py   what a source string means
    listing.py        the files of a folder, an archive or a bucket, by path and size
    image_folder.py   a listing of class folders → labelled files
    polyvore.py       a listing of the Polyvore data set → labelled files
    archives.py       reading the entries of zip and tar files; unpacking.py: writing them out
    download.py       http(s) archives
    digits.py         the embedded default
    hashing.py        SHA-256 of many files, remembered
    local.py          a source on this machine or the web → a local folder
    assembling.py     a local folder → a data set

Everything but S3, which is darkroom/backends/storage.py.
"""
