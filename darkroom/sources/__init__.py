"""Where images come from, and how each kind of source becomes a labelled, hashed data set.

    source_names.py   what a source string means
    entry_paths.py    which paths inside a source are safe, and which of no interest
    listing.py        the files of a folder, by path and size
    labelled.py       files with classes and given splits
    split_names.py    what folders, columns and files call the splits
    image_folder.py   a listing of class folders → labelled files
    label_files.py    files with a row an image → labelled files
    labelling.py      whether folders or files say what an image is
    splitting.py      the splits that a source lacks, by class and group
    polyvore.py       a listing of the Polyvore data set → labelled files
    archives.py       reading the entries of zip and tar files, within archive_meter.py's limits
    unpacking.py      writing them out, once
    download.py       http(s) archives; http_answers.py: what servers say of them
    digits.py         the embedded default
    hashing.py        SHA-256 of many files, remembered; concurrency.py: in a few threads
    local.py          a source on this machine or the web → a local folder
    assembling.py     a local folder → a data set

Everything but S3, which is darkroom/backends/storage.py.
"""
