"""The kernel that matches one image to another: bases, normal equations, solution, errors, whitening; ZOGY."""
