// Puts the window together: the real backend, one session, one page.

import { mount } from 'svelte';

import './app.css';
import Root from './Root.svelte';
import { tauriBackend } from './lib/api/tauri';
import { Session } from './features/session/session.svelte';

const target = document.getElementById('app');
if (!target) throw new Error('index.html lost its #app element');

const session = new Session(tauriBackend);
mount(Root, { target, props: { session } });
void session.connect();
