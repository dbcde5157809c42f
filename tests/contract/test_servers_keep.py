"""What servers do with an aggregate keeps the contract of algorithms."""

from contract.groups import SERVERS
from keeps import algorithms

globals().update(algorithms(SERVERS))
