// A backend that answers from samples and lets a test say what happens. Never part of the window.

import type { Backend } from '../../src/lib/api/backend';
import type {
  Command,
  ErrorBody,
  Event,
  FilterView,
  HotkeyView,
  Preferences,
  Reply,
  RulesView,
  Snapshot,
} from '../../src/lib/api/types';
import { alertsView } from './alerts';
import { listsView } from './catalogue';
import { answerWallet } from './answers';
import { history, rulesView } from './control';
import { answer, overview } from './ledger';
import { dataPlaces, OWN_PATH, ownModel } from './own';
import { answerPower, powerView } from './power';
import { checks, NOW_MS, receipt } from './samples';
import { noticeSettings, updateView } from './update';
import { guideView, walletView } from './wallet';

export class FakeBackend implements Backend {
  readonly commands: Command[] = [];
  preferences: Preferences = { theme: 'system', on_close: 'ask', language: 'system' };
  /** What the Earnings page tells. */
  overview = overview;
  wallet = walletView();
  guide = guideView();
  rules: RulesView = rulesView;
  power = powerView();
  alerts = alertsView;
  update = updateView();
  notices = noticeSettings;
  lists = listsView();
  filter: FilterView = { on: false, words: [] };
  hotkey: HotkeyView = { way: 'here', keys: null, problem: null };
  /** Errors for the next commands of a name. */
  readonly refusals = new Map<Command['cmd'], ErrorBody>();
  #handler: ((event: Event) => void) | null = null;

  constructor(public snapshot: Snapshot) {}

  async call(command: Command): Promise<Reply> {
    this.commands.push(structuredClone(command));
    const refusal = this.refusals.get(command.cmd);
    if (refusal) {
      this.refusals.delete(command.cmd);
      throw refusal;
    }
    switch (command.cmd) {
      case 'snapshot':
        return { reply: 'snapshot', payload: this.snapshot };
      case 'preferences':
        return { reply: 'preferences', payload: this.preferences };
      case 'preferences_set':
        this.preferences = command.payload.preferences;
        return { reply: 'ok' };
      case 'rules':
        return { reply: 'rules', payload: this.rules };
      case 'rules_set':
        this.rules = { ...this.rules, rules: command.payload.rules };
        return { reply: 'rules', payload: this.rules };
      case 'decisions':
        return { reply: 'decisions', payload: history(NOW_MS) };
      case 'power':
        this.power = answerPower(this.power, command.payload);
        return { reply: 'power', payload: this.power };
      case 'alerts': {
        const asked = command.payload;
        if (asked.ask === 'set') this.alerts = { ...this.alerts, rules: asked.rules };
        return { reply: 'alerts', payload: this.alerts };
      }
      case 'update': {
        const asked = command.payload;
        if (asked.ask === 'set') this.update = { ...this.update, preferences: asked.preferences };
        return { reply: 'update', payload: this.update };
      }
      case 'filter': {
        if (command.payload.ask === 'set') this.filter = command.payload.filter;
        return { reply: 'filter', payload: this.filter };
      }
      case 'hotkey': {
        const asked = command.payload;
        if (asked.ask === 'set') this.hotkey = { ...this.hotkey, keys: asked.keys, problem: null };
        return { reply: 'hotkey', payload: this.hotkey };
      }
      case 'notices': {
        const asked = command.payload;
        if (asked.ask === 'set') this.notices = asked.settings;
        return { reply: 'notices', payload: this.notices };
      }
      case 'data':
        return { reply: 'data', payload: dataPlaces };
      case 'doctor':
        return { reply: 'doctor', payload: checks };
      case 'receipts':
        return {
          reply: 'receipts',
          payload: Array.from({ length: 3 }, (_, index) => receipt(100 + index)),
        };
      case 'earnings': {
        const { about } = command.payload;
        if (about.ask === 'tariff') this.overview = { ...this.overview, tariff: about.tariff };
        return { reply: 'earnings', payload: answer(about, this.overview) };
      }
      case 'picture_save':
        return { reply: 'saved', payload: { path: '/home/ada/Pictures/Neurino/neurino-1.png' } };
      case 'own_model':
        if (command.payload.do === 'add') return { reply: 'ok' };
        return { reply: 'own_model', payload: ownModel(command.payload.path) };
      case 'catalogue':
        return { reply: 'catalogue', payload: this.lists };
      case 'window': {
        const { action } = command.payload;
        if (action === 'choose_file') return { reply: 'chosen', payload: { path: OWN_PATH } };
        if (action === 'choose_folder') return { reply: 'chosen', payload: { path: '/media/m' } };
        return { reply: 'ok' };
      }
      case 'wallet':
        return { reply: 'wallet', payload: answerWallet(this, command.payload) };
      case 'onboarding': {
        const asked = command.payload;
        if (asked.ask === 'go') this.guide = { ...this.guide, step: asked.step };
        if (asked.ask === 'finish') this.guide = { ...this.guide, open: false };
        if (asked.ask === 'again') this.guide = { ...this.guide, open: true, step: 'reward' };
        if (asked.ask === 'at_login') this.guide = { ...this.guide, at_login: asked.on };
        return { reply: 'onboarding', payload: this.guide };
      }
      default:
        return { reply: 'ok' };
    }
  }

  async listen(handler: (event: Event) => void): Promise<() => void> {
    this.#handler = handler;
    return () => {
      this.#handler = null;
    };
  }

  /** Pushes an event to the window. */
  emit(event: Event): void {
    if (event.event === 'snapshot') this.snapshot = event.payload;
    this.#handler?.(event);
  }

  /** Commands of one name, in order. */
  sent<K extends Command['cmd']>(cmd: K): Extract<Command, { cmd: K }>[] {
    return this.commands.filter((one): one is Extract<Command, { cmd: K }> => one.cmd === cmd);
  }
}
