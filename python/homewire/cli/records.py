"""Commands on records: projects, their keys and apps, users, homes, members, devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homewire.cli import output
from homewire.cli.options import AnyProject, Device, Home, KeyId, Name, NamedProject, Project, User, Yes
from homewire.cli.output import Answer, agreed, complain, printable
from homewire.cli.scope import Scope, command
from homewire.demo import APP, open_session
from homewire.errors import UnknownRecord
from homewire.projects.models import AccessControl, AccountSystem, Invitations, KeyScope
from homewire.projects.models import OfflineCommands as OfflineCommandsRecord
from homewire.projects.models import Project as ProjectRecord


def _group(name: str, help: str) -> typer.Typer:
    return typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode=None)


projects = _group("project", "Projects: tenants that share nothing.")
project_keys = _group("project-key", "Keys of a project, with permissions.")
apps = _group("app", "Apps that a project's users sign in with.")
users = _group("user", "Users of a project.")
homes = _group("home", "Homes of a project.")
members = _group("member", "Members of a home, who receive its events.")
devices = _group("device", "Devices of a project.")


def register(app: typer.Typer) -> None:
    """Add the groups to the command tree."""
    # Here, for it adds commands to these groups.
    from homewire.cli import listing

    listing.register(apps, users, homes, members, devices)
    for group in (projects, project_keys, apps, users, homes, members, devices):
        app.add_typer(group)


@command(projects, "create", changes=True)
async def create_project(
    scope: Scope,
    name: Name,
    accounts: Annotated[AccountSystem, typer.Option(help="How its users sign in.")],
    access_control: Annotated[
        AccessControl,
        typer.Option(help="Who receives events of a home: its members, or users with a permission."),
    ] = AccessControl.MEMBERSHIP,
    on_demand_provisioning: Annotated[
        bool, typer.Option("--on-demand-provisioning", help="Devices may register themselves with a token.")
    ] = False,
) -> Answer:
    """Create a project."""
    project = await scope.store.projects.create(name, accounts, access_control, on_demand_provisioning)
    return {"projectId": project.id}


@command(projects, "list")
async def list_projects(scope: Scope) -> Answer:
    """List the projects."""
    return [_listed(project) for project in await scope.store.projects.list()]


@command(projects, "show")
async def show_project(scope: Scope, project: Project = None) -> Answer:
    """Show a project, its settings and its stored records and bytes."""
    project_id = scope.named(project)
    return await _project(scope, project_id) | await _stored(scope, project_id)


@command(projects, "recount", changes=True)
async def recount_project(scope: Scope, project: Project = None) -> Answer:
    """Count the records and bytes of a project again, and correct its counters."""
    project_id = scope.named(project)
    await scope.store.recount.recount(project_id)
    return {"projectId": project_id} | await _stored(scope, project_id)


@command(projects, "set", changes=True)
async def set_project(
    scope: Scope,
    project: Project = None,
    verification_url: Annotated[
        str | None,
        typer.Option(
            help='Link of a mail that verifies an address, with {token}; "" for a page of homewire\'s own.',
            show_default=False,
        ),
    ] = None,
    password_reset_url: Annotated[
        str | None,
        typer.Option(help="Likewise, of a mail that leads to a new password.", show_default=False),
    ] = None,
    offline_commands: Annotated[
        OfflineCommandsRecord | None,
        typer.Option(
            help="Commands to a device that is not connected: drop answers 204, refuse 403 DEVICE_OFFLINE.",
            show_default=False,
        ),
    ] = None,
    invitations: Annotated[
        Invitations | None,
        typer.Option(help="Whether a user who is added to a home must accept first.", show_default=False),
    ] = None,
    sms_country_codes: Annotated[
        str | None,
        typer.Option(
            help='Country calling codes that SMS are sent to: 49,43; "" for those of the setting.',
            show_default=False,
        ),
    ] = None,
) -> Answer:
    """Change settings of a project; those that are not given stay."""
    project_id = scope.named(project)
    await scope.store.projects.configure(
        project_id,
        verification_url=verification_url,
        password_reset_url=password_reset_url,
        offline_commands=offline_commands,
        invitations=invitations,
        sms_country_codes=sms_country_codes,
    )
    return await _project(scope, project_id)


@command(projects, "disable", changes=True)
async def disable_project(scope: Scope, project: Project = None) -> Answer:
    """Disable a project: its keys are refused and its connections closed until it is enabled."""
    project_id = scope.named(project)
    await scope.store.projects.disable(project_id)
    return {"projectId": project_id}


@command(projects, "enable", changes=True)
async def enable_project(scope: Scope, project: Project = None) -> Answer:
    """Enable a project that was disabled."""
    project_id = scope.named(project)
    await scope.store.projects.enable(project_id)
    return {"projectId": project_id}


@command(projects, "delete", changes=True)
async def delete_project(scope: Scope, project: NamedProject, yes: Yes = False) -> Answer:
    """Delete a project with all that is in it. Its keys are refused at once.

    On a terminal it asks; elsewhere it needs --yes. HOMEWIRE_DEFAULT_PROJECT does not count here.
    """
    project_id = project
    known = await scope.store.projects.get(project_id)
    name = f" {printable(known.name)!r}" if known is not None else ""
    question = f"Delete project {project_id}{name} with all its users, homes, devices and keys?"
    if not agreed(question, yes):
        complain("nothing was deleted")
        raise typer.Exit(1)
    await scope.store.projects.delete(project_id)
    await scope.store.projects.sweep(project_id)
    return {"projectId": project_id}


@command(project_keys, "create", changes=True)
async def create_project_key(
    scope: Scope,
    name: Name,
    permission: Annotated[list[KeyScope], typer.Option(help="What the key may do; repeat for more.")],
    project: Project = None,
) -> Answer:
    """Create a key of the project. It is shown this once."""
    project_id = await scope.project(project)
    made, key = await scope.store.project_keys.create(project_id, name, frozenset(permission))
    return {"projectKeyId": made.id, "key": key}


@command(project_keys, "list")
async def list_project_keys(scope: Scope, project: Project = None) -> Answer:
    """List the project's keys, without their secrets."""
    project_id = await scope.project(project)
    return [
        {"projectKeyId": key.id, "name": key.name, "permissions": sorted(scope.value for scope in key.scopes)}
        for key in await scope.store.project_keys.list(project_id)
    ]


@command(project_keys, "revoke", changes=True)
async def revoke_project_key(scope: Scope, key_id: KeyId, project: Project = None) -> Answer:
    """Revoke a key: it is refused from now on."""
    await scope.store.project_keys.revoke(await scope.project(project), key_id)
    return {"projectKeyId": key_id}


@command(project_keys, "rotate", changes=True)
async def rotate_project_key(scope: Scope, key_id: KeyId, project: Project = None) -> Answer:
    """Replace a key's secret. The old one is refused from now on, the new one is shown this once."""
    key = await scope.store.project_keys.rotate(await scope.project(project), key_id)
    return {"projectKeyId": key_id, "key": key}


@command(apps, "delete", changes=True)
async def delete_app(
    scope: Scope,
    app_id: Annotated[str, typer.Option("--id", help="App id.")],
    project: Project = None,
) -> Answer:
    """Delete an app. Sessions that were opened with it go on; no new one can be opened."""
    await scope.store.apps.delete(await scope.project(project), app_id)
    return {"appId": app_id}


@command(apps, "create", changes=True)
async def create_app(
    scope: Scope,
    app_id: Annotated[str, typer.Option("--id", help="App id, e.g. controller_app.")],
    project: Project = None,
) -> Answer:
    """Create an app."""
    await scope.store.apps.create(await scope.project(project), app_id)
    return {"appId": app_id}


@command(users, "create", changes=True)
async def create_user(
    scope: Scope,
    name: Name,
    project: Project = None,
    email: Annotated[
        str | None, typer.Option(help="E-mail address, in a project with e-mail accounts.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            help="Password for the e-mail address. Others see it in the list of processes: rather let it be "
            "asked for, or give --password-file."
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="File with the password; - reads it from standard input."),
    ] = None,
    phone: Annotated[str | None, typer.Option(help="Phone number with country code.")] = None,
    verified: Annotated[
        bool, typer.Option("--verified", help="The address is known to be theirs: they may sign in at once.")
    ] = False,
    app: Annotated[str, typer.Option(help="App that the user's key is for.")] = APP,
) -> Answer:
    """Create a user and open a session; its key is shown this once."""
    project_id = await scope.project(project)
    user = await scope.store.users.create(
        project_id,
        name,
        email=email,
        phone=phone,
        password=None if email is None else output.password(password, password_file),
        verified=verified,
    )
    key = await open_session(scope.store, project_id, user.id, app)
    return {"userId": user.id, "key": key}


@command(users, "delete", changes=True)
async def delete_user(scope: Scope, user: User, project: AnyProject = None) -> Answer:
    """Delete a user with all sessions and memberships. The user's keys are refused at once."""
    # With a given project, the rest of an interrupted deletion is found, too.
    project_id = await (scope.project_of_user(None, user) if project is None else scope.project(project))
    await scope.store.users.delete(project_id, user)
    return {"userId": user}


@command(homes, "create", changes=True)
async def create_home(
    scope: Scope,
    name: Name,
    owner: Annotated[int, typer.Option(help="User id of its first owner.")],
    project: Project = None,
) -> Answer:
    """Create a home."""
    home = await scope.store.homes.create(await scope.project(project), name, owner)
    return {"homeId": home.id}


@command(homes, "delete", changes=True)
async def delete_home(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """Delete a home. Its devices can be claimed again, or are deleted on demand."""
    project_id = await (scope.project_of_home(None, home) if project is None else scope.project(project))
    await scope.store.homes.delete(project_id, home)
    return {"homeId": home}


@command(homes, "deactivate", changes=True)
async def deactivate_home(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """Deactivate a home: no events are accepted or delivered, all data stay until it is activated again."""
    return await _set_deactivated(scope, project, home, True)


@command(homes, "activate", changes=True)
async def activate_home(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """Activate a deactivated home: its members receive its events again."""
    return await _set_deactivated(scope, project, home, False)


@command(members, "add", changes=True)
async def add_member(scope: Scope, home: Home, user: User, project: AnyProject = None) -> Answer:
    """Make a user a member of a home: the home's events reach the user from now on."""
    await scope.store.homes.add_member(await scope.project_of_home(project, home), home, user)
    return {"homeId": home, "userId": user}


@command(members, "remove", changes=True)
async def remove_member(scope: Scope, home: Home, user: User, project: AnyProject = None) -> Answer:
    """Remove a user from a home. Its events no longer reach the user. A home without members is deleted."""
    await scope.store.homes.remove_member(await scope.project_of_home(project, home), home, user)
    return {"homeId": home, "userId": user}


@command(devices, "create", changes=True)
async def create_device(
    scope: Scope,
    device_class: Annotated[str, typer.Option("--class", help="Device class.")],
    project: Project = None,
    home: Annotated[int | None, typer.Option(help="Home id. None: the device can be claimed later.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag, free text.")] = None,
    name: Annotated[str | None, typer.Option(help="Display name.")] = None,
) -> Answer:
    """Create a device. Its key and claim code are shown this once."""
    project_id = await scope.project(project)
    device, key, claim_code = await scope.store.devices.create(
        project_id, device_class, home_id=home, tag=tag, name=name
    )
    return {"deviceId": device.id, "apiKey": key, "claimCode": claim_code}


@command(devices, "rotate-key", changes=True)
async def rotate_device_key(scope: Scope, device: Device, project: AnyProject = None) -> Answer:
    """Replace a device's key. The old one is refused from now on, the new one is shown this once."""
    project_id = await scope.project_of_device(project, device)
    return {"deviceId": device, "apiKey": await scope.store.devices.rotate_key(project_id, device)}


@command(devices, "move", changes=True)
async def move_device(
    scope: Scope,
    device: Device,
    home: Annotated[
        int | None, typer.Option(help="Home id; without it the device leaves its home.", show_default=False)
    ] = None,
    project: AnyProject = None,
) -> Answer:
    """Move a device into a home, or out of the one it is in; its name and values stay behind."""
    await scope.store.devices.move(await scope.project_of_device(project, device), device, home)
    return {"deviceId": device, "homeId": home}


@command(devices, "delete", changes=True)
async def delete_device(scope: Scope, device: Device, project: AnyProject = None) -> Answer:
    """Delete a device. Its key is refused from now on."""
    await scope.store.devices.delete(await scope.project_of_device(project, device), device)
    return {"deviceId": device}


async def _set_deactivated(scope: Scope, project: int | None, home: int, deactivated: bool) -> Answer:
    project_id = await scope.project_of_home(project, home)
    await scope.store.homes.set_deactivated(project_id, home, deactivated)
    return {"homeId": home, "deactivated": deactivated}


async def _project(scope: Scope, project_id: int) -> dict[str, Any]:
    project = await scope.store.projects.get(project_id)
    if project is None:
        raise UnknownRecord("project", project_id)
    return _listed(project) | {
        "disabled": project.disabled,
        "verificationUrl": project.verification_url or None,
        "passwordResetUrl": project.password_reset_url or None,
        "offlineCommands": project.offline_commands.value,
        "invitations": project.invitations.value,
        "smsCountryCodes": project.sms_country_codes or None,
    }


async def _stored(scope: Scope, project_id: int) -> dict[str, Any]:
    """Stored records and bytes, and their limits by the settings of this command (0: no limit)."""
    stored, quotas = await scope.store.usage.of(project_id), scope.store.usage.quotas
    return {
        "storedBytes": stored.bytes,
        "storedBytesLimit": quotas.project_bytes,
        "storedRecords": stored.records,
        "storedRecordsLimit": quotas.project_records,
    }


def _listed(project: ProjectRecord) -> dict[str, Any]:
    return {
        "projectId": project.id,
        "name": project.name,
        "accounts": project.accounts.value,
        "accessControl": project.access_control.value,
        "onDemandProvisioning": project.on_demand_provisioning,
    }
