"""Block-sparse updates: a few blocks of each weight matrix are trained, and learnt scores say which."""
