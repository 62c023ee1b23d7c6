"""AWS on one port of loopback: moto, and in front of it what really executes jobs.

server.py        the program; which request goes where: to our operations, to moto, or is refused
operations.py    the registry of operations; each is a function of request and state
state.py         everything that was created, in memory; threads and processes of jobs
errors.py        AwsError, and how it travels
"""
