"""Say what an installation has and lacks, and the command that mends each thing that is missing.

Nothing here imports more than the standard library, so that an installation without its packages can be
examined, too. What has to be imported is imported by other processes (:mod:`fsrl_ext.doctor.probes`).
"""

from fsrl_ext.doctor.examine import examine
from fsrl_ext.doctor.findings import Finding

__all__ = ["Finding", "examine"]
