"""What runs in the two measured processes: one module for each library, and the loops that they share.

A side is told what to be by one argument (`Setup`). A server prints its address. A client prints a line once
it is connected; then it does one round for each number that it reads, and answers with one line each.
"""
