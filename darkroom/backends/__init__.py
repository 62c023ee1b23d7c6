"""Where jobs run and where data lies: this machine or AWS."""
