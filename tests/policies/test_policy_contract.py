"""The contract of all policies, applied to each kind."""

import pytest

from palate.policies import LanguagePolicy, SequencePolicy
from policies.policy_contract import PolicyContract
from policies.small_modules import mean_of_items


class TestLanguage(PolicyContract):
    sums_to_one = False
    learns_as_it_scores = False

    @pytest.fixture
    def policy(self, small_data):
        return LanguagePolicy.create("tiny", small_data.items, "history", max_history=6, seed=1)


class TestSequence(PolicyContract):
    @pytest.fixture
    def policy(self, small_data):
        return SequencePolicy.create(small_data.items, max_history=6, hidden=16, inner=16, seed=1)


class TestModule(PolicyContract):
    @pytest.fixture
    def policy(self, small_data):
        return mean_of_items(small_data.items, width=6)
