"""Toy problems and builders that the tests of all rooms share.

- `envs`: environments that take microseconds per step;
- `cmdps`: constrained problems whose optimum is known in closed form or by a few lines of arithmetic;
- `tasks`: the ids under which toy environments and families are registered;
- `counting_envs`: environments that count their episodes and steps, and what can go wrong in them;
- `counting`: checks of collectors and buffers against the sums of the counting environment;
- `policies`: every policy with small networks;
- `browser`: a headless browser;
- `page_code`: runs the Python of the documentation;
- `training`: collect with a policy, update it, measure it;
- `meta`: a meta-learner with small networks, and one meta-iteration by hand;
- `every`: any policy, the meta-learner included, by the same calls;
- `buffers`: buffers that are filled by hand;
- `settings`: small runs of the command line's algorithms, one dictionary of settings per family;
- `runs`: runs that are killed, and the comparison of two run folders;
- `simulators`: rollouts of real tasks to compare, and Gymnasium's checker;
- `recorder`: a logger that keeps what it is given.

Tests import from here, never from each other.
"""
