"""What a project looks like after whatever was asked of it: as simple as it can be said."""

from __future__ import annotations

from dataclasses import dataclass, field

OWNER, MEMBER = "owner", "member"


@dataclass
class Home:
    name: str
    members: dict[int, str]
    """User id → role, the longest-standing first."""

    @property
    def owners(self) -> int:
        return list(self.members.values()).count(OWNER)


@dataclass
class Device:
    key: str
    claim_code: str
    name: str = ""
    home: int | None = None
    claimable: bool = False


@dataclass
class Project:
    """Users by id with their names, homes and devices by id."""

    users: dict[int, str] = field(default_factory=dict)
    homes: dict[int, Home] = field(default_factory=dict)
    devices: dict[int, Device] = field(default_factory=dict)

    def role(self, home: int, user: int) -> str | None:
        return self.homes[home].members.get(user)

    def homes_of(self, user: int) -> list[int]:
        return sorted(home for home, each in self.homes.items() if user in each.members)

    def devices_of(self, home: int) -> list[int]:
        return sorted(device for device, each in self.devices.items() if each.home == home)

    def as_owner(self, home: int, user: int) -> int:
        """What an owner's request is answered to this user."""
        return {OWNER: 204, MEMBER: 403, None: 404}[self.role(home, user)]

    def add_member(self, by: int, home: int, user: int, role: str) -> int:
        standing = self.role(home, by)
        if standing is None or user in self.homes[home].members or (role == OWNER and standing != OWNER):
            return 403
        self.homes[home].members[user] = role
        return 201

    def set_role(self, by: int, home: int, user: int, role: str) -> int:
        members = self.homes[home].members
        if by not in members or user not in members:
            return 404
        if members[by] != OWNER or (
            members[user] == OWNER and role == MEMBER and self.homes[home].owners == 1
        ):
            return 403
        members[user] = role
        return 204

    def remove_member(self, by: int, home: int, user: int) -> int:
        members = self.homes[home].members
        if by not in members:
            return 404
        if by != user and members[by] != OWNER:
            return 403
        if user not in members:
            return 404
        if len(members) == 1:
            self.delete_home(home)
        elif members[user] == OWNER and self.homes[home].owners == 1:
            return 403
        else:
            del members[user]
        return 204

    def delete_home(self, home: int) -> None:
        for device in self.devices_of(home):
            self.give_back(device)
        del self.homes[home]

    def delete_user(self, user: int) -> None:
        """Homes of theirs alone go; where they were the last owner, the longest-standing member is next."""
        del self.users[user]
        for home_id in self.homes_of(user):
            home = self.homes[home_id]
            del home.members[user]
            if not home.members:
                self.delete_home(home_id)
            elif not home.owners:
                home.members[next(iter(home.members))] = OWNER

    def claim(self, user: int, home: int, device: int) -> int:
        each = self.devices[device]
        if self.role(home, user) is None or each.home is not None or not each.claimable:
            return 403
        each.home, each.claimable = home, False
        return 201

    def give_back(self, device: int) -> None:
        """Whoever leaves a home can't be claimed before it registers again."""
        each = self.devices[device]
        each.home, each.name, each.claimable = None, "", False

    def sees_device(self, user: int, device: int) -> bool:
        home = self.devices[device].home
        return home is not None and self.role(home, user) is not None
