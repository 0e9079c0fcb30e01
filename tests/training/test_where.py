"""Where a run is carried out: as its recipe says, unless whoever starts it says otherwise."""

from swe_srl.config import ClusterSection
from swe_srl.environments.shipping import Shipping
from swe_srl.training.opening import Where
from swe_srl.training.processes import ALONE


def test_a_recipe_that_says_nothing_stays_on_this_machine() -> None:
    where = Where.of(ClusterSection())
    assert (where, where.on_nodes) == (Where("local", Shipping()), False)
    with where.open(ALONE, print) as nodes:
        assert nodes is None


def test_a_recipe_names_a_cluster_and_how_its_nodes_get_images() -> None:
    where = Where.of(ClusterSection(address="ray://head:10001", images="registry:host:5000/agents/"))
    assert where == Where("ray://head:10001", Shipping("registry", "host:5000/agents"))
    assert where.on_nodes
