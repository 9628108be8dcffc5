"""Small building blocks with names, which all shared tests run over.

What `acf.registry` names is picked up from there, so a new attention, join, branch or activation is tested without a
line here. Everything else that is to stand the shared tests has its line in one of the tables:

- `layers.LAYERS`: layers with a Lipschitz bound, and branches made of them;
- `blocks.BLOCK_KINDS`: contractive blocks;
- `bijections.BIJECTIONS`: everything with an inverse and a log-determinant, up to whole flows.

`settings` has the small configuration that they are made from, `weights` the ways of moving weights away from where
they start, `noise` the inputs and `jacobians` the derivatives that results are compared with.
"""
