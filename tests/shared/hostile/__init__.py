"""Seeded inputs that mean no good, for images, JSON, npy and HTTP itself.

images.py         files: damaged, exploding, or something else than they seem
bombs.py          small files that would take much
bodies.py         JSON, npy and multipart bodies
http_cases.py     requests that are no HTTP, lie about their length, or lead elsewhere
attacking.py      sends them all to a server, beside a well-behaved client
"""
