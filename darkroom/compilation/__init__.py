"""`compile_model`: which engine runs a bundle's network best on this machine.

results       what is measured and concluded, and the pictures on which engines have to agree
child         one engine in a process of its own, measured when it is told to
measurement   starts the children, lets them take turns, applies the configured rule
tvm           looks into a network with Apache TVM, in an environment of its own
"""
