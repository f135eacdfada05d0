"""A locked rule lowered to integers and a small tree, which every evaluator judges."""
